# The operator's image for users of Docker; `make image` builds the same without it.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=0.4.0
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY cmd/ cmd/
COPY controllers/ controllers/
COPY internal/ internal/
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.Version=$VERSION" -o /etcd-warden ./cmd

FROM gcr.io/distroless/static:nonroot
COPY --from=build /etcd-warden /etcd-warden
USER 65532:65532
ENTRYPOINT ["/etcd-warden"]
