-- Lists that begin with what is worst. The numbers are those of `Row::urgency`.
ALTER TABLE tenant ADD COLUMN urgency bigint NOT NULL DEFAULT 0;
UPDATE tenant SET urgency = (codes = '')::int + 2 * CASE status WHEN 'unreachable' THEN 0 WHEN 'crashed' THEN 1
    WHEN 'degraded' THEN 2 WHEN 'pairing-pending' THEN 3 WHEN 'booting' THEN 4 WHEN 'provisioning' THEN 5
    WHEN 'unknown' THEN 6 WHEN 'ready' THEN 7 ELSE 8 END;
CREATE INDEX tenant_urgency ON tenant (urgency, id) WHERE retired_at IS NULL;
