-- What a machine said is one row; of the narrow one a usual check-in changes but when the next is due. A page has room for
-- the row as it was and as it is, and rows up to half a page stay whole: to compress them costs more than to write them.
CREATE TABLE said (tenant text COLLATE "C" PRIMARY KEY, last text, report text)
    WITH (fillfactor = 50, toast_tuple_target = 4080);
INSERT INTO said
    SELECT id, last.doc, report.doc
    FROM tenant LEFT JOIN last ON last.tenant = id LEFT JOIN report ON report.tenant = id
    WHERE last.doc IS NOT NULL OR report.doc IS NOT NULL;
DROP TABLE last;
DROP TABLE report;
UPDATE tenant SET due_at = NULL WHERE retired_at IS NOT NULL OR status IN ('asleep', 'unreachable');
CREATE INDEX credential_tenant ON credential (tenant);
