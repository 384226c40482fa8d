# Three images from one build: --target server | worker | cli.
# The build stage runs the same set-up functions as scripts/build.
ARG DEBIAN=debian:12.12-slim

FROM ${DEBIAN} AS build
WORKDIR /src
COPY . .
RUN scripts/build && \
    mkdir -p /stage/bin && \
    cp build/release/bin/latentforge* /stage/bin/ && \
    bash -c 'source scripts/lib.sh && stage_libtorch /stage/lib'

FROM ${DEBIAN} AS runtime
RUN . /etc/os-release && apt-get update && \
    apt-get install -y --no-install-recommends libgrpc++1.51 libprotobuf32 libsqlite3-0 libpq5 \
      libcjose0 libcurl4 libprometheus-cpp-pull1.0 libspdlog1.10 libyaml-cpp0.7 libssl3 ca-certificates tini && \
    rm -rf /var/lib/apt/lists/* && \
    groupadd --gid 10001 latentforge && \
    useradd --uid 10001 --gid 10001 --home-dir /var/lib/latentforge --create-home latentforge
USER 10001:10001
ENTRYPOINT ["/usr/bin/tini", "--"]

FROM runtime AS cli
COPY --from=build /stage/bin/latentforge /usr/local/bin/
ENTRYPOINT ["latentforge"]

FROM runtime AS server
COPY --from=build /stage/bin/latentforge /stage/bin/latentforge-server /usr/local/bin/
VOLUME /var/lib/latentforge
EXPOSE 8470 9470
ENTRYPOINT ["/usr/bin/tini", "--", "latentforge-server"]
CMD ["--listen=127.0.0.1:8470", "--insecure", "--database=/var/lib/latentforge/jobs.sqlite"]

FROM runtime AS worker
USER root
# Draws the plots of reports.
RUN apt-get update && apt-get install -y --no-install-recommends gnuplot-nox && \
    rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build /stage/lib/ /usr/local/lib/latentforge/
COPY --from=build /stage/bin/latentforge-worker /stage/bin/latentforge-convert /usr/local/bin/
ENV LD_LIBRARY_PATH=/usr/local/lib/latentforge/torch/lib
ENTRYPOINT ["/usr/bin/tini", "--", "latentforge-worker"]
