# A stand-in for the official gateway image, from what is on this machine: the same user (node, 1000), folder (/app),
# entrypoint (tini) and command, with the published package instead of a build from source.
FROM localhost/debian-tree:bookworm
RUN useradd --uid 1000 --create-home --shell /bin/bash node \
 && cp /from/node /usr/local/bin/node \
 && cp -a /from/node_modules / && mv /node_modules/openclaw /app && chown -R node:node /app
ENV NODE_ENV=production
WORKDIR /app
USER node
ENTRYPOINT ["tini", "-s", "--"]
CMD ["node", "openclaw.mjs", "gateway"]
