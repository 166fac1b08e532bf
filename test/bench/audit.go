package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// auditPolicy has the API server note what the operator asks for, and nobody else. A watch ends late, and is left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: [` + operatorUser + `], verbs: [get, create, update, patch, delete]}
- {level: None}
`

// auditLog is the API server's own account of the operator's requests.
type auditLog struct {
	path     string
	requests []request
	offset   int
}

// request is one entry of the audit log.
type request struct {
	Verb      string
	URI       string    `json:"requestURI"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	Ended     time.Time `json:"stageTimestamp"`
	ObjectRef struct{ Resource, Subresource, Name string }
	Status    struct{ Code int } `json:"responseStatus"`
}

func newAuditLog(dir string, server *envtest.APIServer) (*auditLog, error) {
	policy := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	log := &auditLog{path: filepath.Join(dir, "audit.log")}
	server.Configure().Set("audit-policy-file", policy).Set("audit-log-path", log.path)
	return log, nil
}

var clusterPattern = regexp.MustCompile(`(fleet|running)-[0-9]+`)

// cluster is the name of the cluster that the request was for.
func (r *request) cluster() string { return clusterPattern.FindString(r.ObjectRef.Name) }

func (r *request) isDryRun() bool { return strings.Contains(r.URI, "dryRun=") }

func (r *request) isWrite() bool { return r.Verb != "get" }

// created are the requests that made an object of a cluster.
func created(requests []request) []request {
	var made []request
	for _, r := range requests {
		if r.Verb == "create" && r.Status.Code == 201 && !r.isDryRun() && r.ObjectRef.Resource != "events" {
			made = append(made, r)
		}
	}
	return made
}

// read returns all requests so far.
func (l *auditLog) read() ([]request, error) {
	raw, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	for {
		line, _, whole := bytes.Cut(raw[l.offset:], []byte("\n"))
		if !whole {
			return l.requests, nil
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		l.offset += len(line) + 1
		l.requests = append(l.requests, r)
	}
}

// awaitQuiet waits until the requests are complete and no write was added for a while, and returns them.
func (l *auditLog) awaitQuiet(ctx context.Context, complete func([]request) bool) ([]request, error) {
	last, since := -1, time.Now()
	for end := time.Now().Add(wavePatience); ; {
		requests, err := l.read()
		if err != nil {
			return nil, err
		}
		writes := 0
		for _, r := range requests {
			if r.isWrite() {
				writes++
			}
		}
		if writes != last || !complete(requests) {
			last, since = writes, time.Now()
		}
		if time.Since(since) > quietTime {
			return requests, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("not complete and quiet after %s: %d objects, %d writes", wavePatience, len(created(requests)), writes)
		}
		if err := pause(ctx, time.Second/2); err != nil {
			return nil, err
		}
	}
}

// printRequests prints how many requests of each kind there were for a cluster.
func printRequests(requests []request, clusters int) {
	counts := map[string]int{}
	for _, r := range requests {
		kind := r.Verb + " " + r.ObjectRef.Resource
		if r.ObjectRef.Subresource != "" {
			kind += "/" + r.ObjectRef.Subresource
		}
		if r.isDryRun() {
			kind += " (dry run)"
		}
		if r.Status.Code >= 400 {
			kind += fmt.Sprintf(" answered with %d", r.Status.Code)
		}
		counts[kind]++
	}
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("  %6.2f  %s\n", float64(counts[kind])/float64(clusters), kind)
	}
}
