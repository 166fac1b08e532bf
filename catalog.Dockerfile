# The catalog's image for users of Docker; `make release-images` builds one without it, for CatalogSources that extract their content.
FROM quay.io/operator-framework/opm:v1.73.0
COPY catalog/etcd-warden /configs/etcd-warden
RUN ["/bin/opm", "serve", "/configs", "--cache-dir=/tmp/cache", "--cache-only"]
LABEL operators.operatorframework.io.index.configs.v1=/configs
ENTRYPOINT ["/bin/opm"]
CMD ["serve", "/configs", "--cache-dir=/tmp/cache"]
