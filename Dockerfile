ARG BASE_IMAGE=debian:bookworm-slim

# Bun comes from the lock file like everything else: npm is only there to fetch it.
FROM ${BASE_IMAGE} AS build
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates nodejs npm \
  && rm -rf /var/lib/apt/lists/*
# Bun and npm then trust what the base image trusts, as a company's own authority.
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
COPY package.json bun.lock ./
COPY patches patches
RUN version=$(sed -n 's/.*"bun": "\([0-9.]*\)".*/\1/p' package.json) \
  && npx --yes "bun@$version" install --frozen-lockfile --production \
  # What only compilers, debuggers and other runtimes read is half of it.
  && rm -rf node_modules/typescript node_modules/@typescript node_modules/bun-types node_modules/@types node_modules/bare-* \
  && find node_modules -type f ! -iname "licen*" \
    "(" -name "*.map" -o -name "*.d.*ts" -o -name "*.md" ")" -delete \
  && npm install --global --prefix /bun "bun@$version" \
  && install -D "$(readlink -f /bun/bin/bun)" /out/bun
COPY sql sql
COPY src src

FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --home-dir /app floodgate \
  && install -d -o floodgate /data
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bun /usr/local/bin/bun
COPY --from=build /app /app
WORKDIR /app
USER 10001
# Neither PORT nor HOST, which would win over a LISTEN that is given to the container.
ENV DATA_DIR=/data NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["bun", "-e", "import { readConfig } from './src/platform/config/config.ts'; process.exit((await fetch(`http://127.0.0.1:${readConfig().port}/livez`)).ok ? 0 : 1)"]
# Exec form: SIGTERM reaches the program itself.
ENTRYPOINT ["bun", "src/main.ts"]
CMD ["serve"]
