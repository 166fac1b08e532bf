# Every target is explained by `make help`.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
REPOSITORY ?= ghcr.io/etcd-steward/etcd-steward
IMG ?= $(REPOSITORY):v$(VERSION)
CHANNELS ?= candidate,stable,stable-v0
DEFAULT_CHANNEL ?= stable
K8S_MINOR ?= 1.34
# What `make deploy-namespaced` watches, comma separated.
WATCH_NAMESPACES ?= default
# Where built tools, Kubernetes' binaries and image archives lie.
ETCD_STEWARD_CACHE ?= $(HOME)/.cache/etcd-steward
export ETCD_STEWARD_CACHE VERSION REPOSITORY CHANNELS DEFAULT_CHANNEL

# Where generated files lie.
GENERATED := api config docs bundle bundle.Dockerfile catalog
BUILD_TOOLS := hack/build-tools.sh
TOOLS := controller-gen crdcheck crd-ref-docs kustomize operator-sdk opm crane golangci-lint
# $(call tool,NAME) is the path of a pinned tool, which the recipe builds first with $(BUILD_TOOLS) NAME.
tool = $$($(BUILD_TOOLS) dir $(1))/$(1)
KUBECTL = $$($(BUILD_TOOLS) dir kubernetes)/kubectl
LDFLAGS := -s -w -X main.Version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36mTARGET\033[0m\n"} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*##/ {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Set up everything on this machine and show a healthy etcd cluster.
	hack/demo.sh

.PHONY: tools
tools: ## Build the pinned tools of hack/tools into the cache (minutes, once).
	$(BUILD_TOOLS) $(TOOLS) kubernetes

.PHONY: clean
clean: ## Remove what builds leave in the tree; the cache stays.
	rm -rf bin dist coverage

##@ Development

.PHONY: manifests
manifests: ## Generate the CRDs and the operator's roles from the Go markers.
	@$(BUILD_TOOLS) controller-gen
	$(call tool,controller-gen) crd paths=./api/... output:crd:artifacts:config=config/crd/bases
	$(call tool,controller-gen) rbac:roleName=manager-role paths=./controllers/... output:rbac:artifacts:config=config/rbac
	$(call tool,controller-gen) rbac:roleName=webhook-role paths=./internal/webhook/... output:rbac:artifacts:config=config/webhook

.PHONY: generate
generate: ## Generate the API's DeepCopy methods.
	@$(BUILD_TOOLS) controller-gen
	$(call tool,controller-gen) object paths=./api/...

.PHONY: docs
docs: ## Generate the API references and the page on conditions from the comments in api/.
	@$(BUILD_TOOLS) crd-ref-docs
	hack/docs.sh

.PHONY: fmt
fmt: ## Format the code.
	@$(BUILD_TOOLS) golangci-lint
	$(call tool,golangci-lint) fmt

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: lint
lint: ## Lint the code, prove the import walls hold, and check the scripts.
	@$(BUILD_TOOLS) golangci-lint
	hack/lint.sh

.PHONY: verify
verify: generate manifests docs crd-check bundle bundle-validate catalog catalog-validate ## Prove that every generated file is fresh.
	git diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
	  test -z "$$new" || { echo "generated, but not in git: $$new"; exit 1; }

##@ Build

.PHONY: build
build: ## Build the operator into bin/etcd-steward.
	$(GOBUILD) -o bin/etcd-steward ./cmd

.PHONY: run
run: ## Run the operator here against the cluster of KUBECONFIG (one replica, no leader election, no webhook).
	go run ./cmd manager --metrics-bind-address=0 --webhook-certificate=none

.PHONY: image
image: build ## Build the operator's image without Docker and print the archive's path.
	@$(BUILD_TOOLS) images
	$(call tool,images) operator --binary bin/etcd-steward --version $(VERSION) --tag $(IMG)

.PHONY: docker-build
docker-build: ## Build the operator's image with Docker.
	docker build --build-arg VERSION=$(VERSION) -t $(IMG) .

##@ Local cluster

.PHONY: cluster-up
cluster-up: ## Start the three-node Kubernetes of hack/cluster on this machine.
	hack/cluster/cluster.sh up

.PHONY: cluster-down
cluster-down: ## Stop it and remove everything it left.
	hack/cluster/cluster.sh down

##@ Deployment (to the cluster of KUBECONFIG)

.PHONY: install
install: ## Install the CRDs.
	@$(BUILD_TOOLS) kustomize kubernetes
	$(call tool,kustomize) build config/crd | $(KUBECTL) apply --server-side -f -

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every EtcdCluster; the volumes stay.
	@$(BUILD_TOOLS) kustomize kubernetes
	$(call tool,kustomize) build config/crd | $(KUBECTL) delete --ignore-not-found -f -

.PHONY: deploy
deploy: ## Install the CRDs and the operator for all namespaces.
	@$(BUILD_TOOLS) kustomize kubernetes
	$(call tool,kustomize) build config/default | sed 's|image: $(REPOSITORY):.*|image: $(IMG)|' | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove the operator; its namespace, the CRDs and the etcd clusters stay.
	@$(BUILD_TOOLS) kustomize kubernetes
	for config in default namespaced/webhook; do \
	  $(call tool,kustomize) build config/$$config | \
	    awk -v RS='\n---\n' -v ORS='\n---\n' '!/(^|\n)kind: (CustomResourceDefinition|Namespace)(\n|$$)/' | $(KUBECTL) delete --ignore-not-found -f - || exit 1; done
	$(KUBECTL) -n etcd-steward-system delete --ignore-not-found secret etcd-steward-webhook-certificate

.PHONY: deploy-webhook
deploy-webhook: install ## Install the conversion webhook alone, which all operators of chosen namespaces share.
	$(call tool,kustomize) build config/namespaced/webhook | sed 's|image: $(REPOSITORY):.*|image: $(IMG)|' | $(KUBECTL) apply --server-side -f -

.PHONY: deploy-namespaced
deploy-namespaced: deploy-webhook ## Install the operator for WATCH_NAMESPACES=one,two alone, with Roles only.
	for ns in $$(echo $(WATCH_NAMESPACES) | tr , ' '); do \
	  $(call tool,kustomize) build config/namespaced/watched | $(KUBECTL) apply --server-side -n "$$ns" -f - || exit 1; done
	$(call tool,kustomize) build config/namespaced/manager | \
	  sed 's|--watch-namespaces=default|--watch-namespaces=$(WATCH_NAMESPACES)|; s|image: $(REPOSITORY):.*|image: $(IMG)|' | $(KUBECTL) apply --server-side -f -

##@ Test

.PHONY: test
test: ## Run the unit, integration, end-to-end and OLM suites; the last line counts the tests.
	hack/test.sh unit integration e2e olm

.PHONY: test-unit
test-unit: ## Run the unit tests.
	hack/test.sh unit

.PHONY: test-integration
test-integration: ## Run the tests against a real API server and etcd.
	hack/test.sh integration

.PHONY: test-e2e
test-e2e: ## Run the tests on the local cluster, or KUBECONFIG's with USE_EXISTING_CLUSTER=true.
	hack/test.sh e2e

.PHONY: test-olm
test-olm: ## Run the tests under Operator Lifecycle Manager on the local cluster.
	hack/test.sh olm

.PHONY: test-full
test-full: cluster-down ## Run every suite with its whole matrix, as before a release.
	ETCD_STEWARD_TEST_FULL=true hack/test.sh unit integration cluster e2e olm

.PHONY: test-cluster
test-cluster: cluster-down ## Test the local cluster itself: start, node loss, volumes, nothing left behind.
	hack/test.sh cluster

.PHONY: bench-create
bench-create: ## Measure cluster creation against a plain StatefulSet.
	hack/bench.sh create

.PHONY: bench-idle
bench-idle: ## Count the operator's API requests over five minutes of rest.
	hack/bench.sh idle

##@ Release

.PHONY: crd-check
crd-check: ## Prove that the CRDs take and keep whatever a release stored, and that samples and examples are valid.
	@$(BUILD_TOOLS) crdcheck
	$(call tool,crdcheck) releases
	$(call tool,crdcheck) objects $$(git ls-files 'examples/*.yaml' 'config/samples/operator_*.yaml')

.PHONY: dist
dist: manifests ## Write the plain installation as one file, dist/install.yaml.
	@$(BUILD_TOOLS) kustomize
	@mkdir -p dist
	$(call tool,kustomize) build config/default | sed 's|image: $(REPOSITORY):.*|image: $(IMG)|' > dist/install.yaml

.PHONY: bundle
bundle: manifests ## Generate the OLM bundle of VERSION into bundle/.
	@$(BUILD_TOOLS) kustomize operator-sdk
	hack/bundle.sh

.PHONY: bundle-validate
bundle-validate: ## Validate the bundle as OLM, the operator catalogs and scorecard do.
	@$(BUILD_TOOLS) operator-sdk
	K8S_MINOR=$(K8S_MINOR) hack/bundle-validate.sh

.PHONY: catalog
catalog: ## Render the catalog from its template and every release's bundle.
	@$(BUILD_TOOLS) opm crane
	hack/catalog.sh

.PHONY: catalog-validate
catalog-validate: ## Validate the catalog.
	@$(BUILD_TOOLS) opm
	$(call tool,opm) validate catalog
