package render

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// floors are the oldest supported releases. testdata holds the flags of each: what its server defines
// in embed/config.go and etcdmain/config.go.
var floors = []string{"3.5.32", "3.6.12", "3.7.0"}

func flagsOf(t *testing.T, version string) map[string]bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "flags-"+version+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for name := range strings.Lines(string(raw)) {
		flags[strings.TrimSpace(name)] = true
	}
	return flags
}

func TestEveryOptionThatMayBeSetIsAFlagOfItsVersion(t *testing.T) {
	for _, version := range floors {
		flags, minor := flagsOf(t, version), minorOf(version)
		for _, o := range options {
			if name := o.nameIn(minor); name != "" && !flags[name] {
				t.Errorf("etcd %s has no --%s", version, name)
			}
		}
	}
}

func TestEveryFlagOfTheOperatorIsAFlagOfItsVersion(t *testing.T) {
	for _, v := range floors {
		flags := flagsOf(t, v)
		c := makeCluster(version(v), secrets("prod-peer", "prod-server"))
		for _, in := range []MemberInput{founding(c), started(c)} {
			for _, arg := range args(in) {
				name, _, found := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
				if !found || !flags[name] {
					t.Errorf("etcd %s has no flag for %s", v, arg)
				}
			}
		}
	}
}

func TestNoOptionIsAFlagThatTheOperatorSets(t *testing.T) {
	for _, v := range floors {
		c := makeCluster(version(v), secrets("prod-peer", "prod-server"))
		for _, arg := range args(founding(c)) {
			name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if name == "quota-backend-bytes" {
				continue // the user's value replaces the default
			}
			if why := refuse(cluster.OptionVariable(name), "true", v); why == "" || strings.HasPrefix(why, "its value") {
				t.Errorf("users of etcd %s may set --%s, and so does the operator", v, name)
			}
		}
	}
}

func TestAnOptionIsPassedOnOrRefusedWithTheReason(t *testing.T) {
	for _, test := range []struct {
		version, name, value, why string
	}{
		{"3.5.35", "ETCD_MAX_TXN_OPS", "256", ""},
		{"3.6.16", "ETCD_MAX_TXN_OPS", "256", ""},
		{"3.7.3", "ETCD_MAX_TXN_OPS", "256", ""},

		{"3.5.35", "ETCD_EXPERIMENTAL_WARNING_APPLY_DURATION", "200ms", ""},
		{"3.6.16", "ETCD_EXPERIMENTAL_WARNING_APPLY_DURATION", "200ms", "etcd 3.6 calls it warning-apply-duration"},
		{"3.7.3", "ETCD_EXPERIMENTAL_WARNING_APPLY_DURATION", "200ms", "etcd 3.7 calls it warning-apply-duration"},
		{"3.5.35", "ETCD_WARNING_APPLY_DURATION", "200ms", "etcd 3.5 calls it experimental-warning-apply-duration"},
		{"3.6.16", "ETCD_WARNING_APPLY_DURATION", "200ms", ""},
		{"3.7.3", "ETCD_WARNING_APPLY_DURATION", "200ms", ""},

		{"3.5.35", "ETCD_LOG_FORMAT", "console", "etcd 3.5 does not have it"},
		{"3.6.16", "ETCD_LOG_FORMAT", "console", ""},

		{"3.6.16", "ETCD_SNAPSHOT_COUNT", "many", "its value must be a whole number that is not negative, such as 100"},
		{"3.6.16", "ETCD_QUOTA_BACKEND_BYTES", "-1", "its value must be a whole number that is not negative, such as 100"},
		{"3.6.16", "ETCD_BACKEND_BATCH_INTERVAL", "10", "its value must be a duration, such as 30s"},
		{"3.6.16", "ETCD_BACKEND_BATCH_INTERVAL", "10ms", ""},
		{"3.6.16", "ETCD_AUTO_COMPACTION_MODE", "hourly", "its value must be one of periodic, revision"},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "1000", ""},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "1h30m", ""},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "often", "its value must be a whole number or a duration of at least 1s, such as 1000 or 1h"},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "1ns", "its value must be a whole number or a duration of at least 1s, such as 1000 or 1h"},
		{"3.6.16", "ETCD_COMPACT_HASH_CHECK_TIME", "0s", "its value must be a duration of at least 1ms, such as 1m"},
		{"3.6.16", "ETCD_COMPACT_HASH_CHECK_TIME", "1ms", ""},
		{"3.5.35", "ETCD_EXPERIMENTAL_COMPACT_HASH_CHECK_TIME", "0s", "its value must be a duration of at least 1ms, such as 1m"},
		{"3.6.16", "ETCD_CORRUPT_CHECK_TIME", "0s", ""},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "0", "its value must be a whole number from 1 to 10000"},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "1", ""},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "200", ""},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "0xc8", ""},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "0x2711", "its value must be a whole number from 1 to 10000"},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "010", ""},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "08", "its value must be a whole number from 1 to 10000"},
		{"3.6.16", "ETCD_HEARTBEAT_INTERVAL", "+9", "its value must be a whole number from 1 to 10000"},
		{"3.6.16", "ETCD_SNAPSHOT_COUNT", "+1000", "its value must be a whole number that is not negative, such as 100"},
		{"3.6.16", "ETCD_BACKEND_BATCH_LIMIT", "+1000", ""},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "08", ""},
		{"3.6.16", "ETCD_AUTO_COMPACTION_RETENTION", "0x8", "its value must be a whole number or a duration of at least 1s, such as 1000 or 1h"},
		{"3.6.16", "ETCD_ELECTION_TIMEOUT", "500", ""},
		{"3.6.16", "ETCD_ELECTION_TIMEOUT", "50000", ""},
		{"3.6.16", "ETCD_ELECTION_TIMEOUT", "50001", "its value must be a whole number from 5 to 50000"},
		{"3.6.16", "ETCD_MAX_CONCURRENT_STREAMS", "4294967295", ""},
		{"3.6.16", "ETCD_MAX_CONCURRENT_STREAMS", "4294967296", "its value must be a whole number from 0 to 4294967295"},
		{"3.6.16", "ETCD_MAX_REQUEST_BYTES", "1024", ""},
		{"3.6.16", "ETCD_MAX_REQUEST_BYTES", "0", "its value must be a whole number of at least 1024"},
		{"3.6.16", "ETCD_PRE_VOTE", "false", ""},
		{"3.6.16", "ETCD_PRE_VOTE", "perhaps", "its value must be true or false"},
		{"3.6.16", "ETCD_CIPHER_SUITES", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ""},
		{"3.6.16", "ETCD_CIPHER_SUITES", "TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", ""},
		{"3.6.16", "ETCD_CIPHER_SUITES", "", noCiphers},
		{"3.6.16", "ETCD_CIPHER_SUITES", "bogus", noCiphers},
		{"3.6.16", "ETCD_CIPHER_SUITES", "TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384", noCiphers},
		{"3.6.16", "ETCD_HOST_WHITELIST", "a\nb", "its value must be a text without control characters"},
		{"3.6.16", "ETCD_CORS", "*", ""},
		{"3.6.16", "ETCD_CORS", "https://a.example.com,http://b.example.com:8080", ""},
		{"3.6.16", "ETCD_CORS", "example.com", "its value must be * or origins separated by commas, such as https://example.com"},

		{"3.6.16", "ETCD_NAME", "other", "etcd-warden names the members"},
		{"3.6.16", "ETCD_DATA_DIR", "/tmp", "the data directory lies on the member's volume"},
		{"3.6.16", "ETCD_WAL_DIR", "/tmp", "the write-ahead log lies on the member's volume"},
		{"3.6.16", "ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:1", "etcd-warden sets the addresses"},
		{"3.6.16", "ETCD_INITIAL_CLUSTER_STATE", "new", "etcd-warden founds the cluster"},
		{"3.5.35", "ETCD_PROXY", "on", "a member is never a proxy"},
		{"3.5.35", "ETCD_ENABLE_V2", "true", "v2 data stands in the way of upgrades"},
		{"3.6.16", "ETCD_FORCE_NEW_CLUSTER", "true", "it drops the other members"},
		{"3.6.16", "ETCD_UNSAFE_NO_FSYNC", "true", "it loses acknowledged writes"},
		{"3.6.16", "ETCD_STRICT_RECONFIG_CHECK", "false", "the check is always on: without it a change of members could end the quorum"},
		{"3.6.16", "ETCD_FEATURE_GATES", "AllAlpha=true", "etcd-warden sets the feature gates"},
		{"3.6.16", "ETCD_CLIENT_CERT_AUTH", "false", "certificates come from spec.tls"},
		{"3.6.16", "ETCD_PEER_SKIP_CLIENT_SAN_VERIFICATION", "true", "it lets any holder of a certificate join as any peer"},

		{"3.6.16", "ETCD_ENABLE_DISTRIBUTED_TRACING", "true", "it is not among the options that etcd-warden passes on to etcd 3.6"},
		{"3.6.16", "ETCD_NO_SUCH_OPTION", "1", "it is not among the options that etcd-warden passes on to etcd 3.6"},
		{"3.6.16", "ETCD_", "1", "it is not among the options that etcd-warden passes on to etcd 3.6"},
		{"3.6.16", "ETCD__", "1", "it is not among the options that etcd-warden passes on to etcd 3.6"},
	} {
		t.Run(test.version+" "+test.name+"="+test.value, func(t *testing.T) {
			intent := cluster.Intent{Version: test.version, Options: map[string]string{test.name: test.value}}
			var want []OptionRefusal
			if test.why != "" {
				want = []OptionRefusal{{Name: flagOf(test.name), Why: test.why}}
			}
			if diff := cmp.Diff(want, RefusedOptions(intent)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if passed := len(userFlags(intent)) > 0; passed != (test.why == "" || strings.HasPrefix(test.why, "its value")) {
				t.Errorf("passed on: %v", passed)
			}
		})
	}
}

const noCiphers = "its value must be names of cipher suites separated by commas, such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"

func TestOptionsThatDoNotFitEachOtherAreRefused(t *testing.T) {
	for _, test := range []struct {
		does    string
		options map[string]string
		want    []OptionRefusal
	}{
		{"an election shorter than five heartbeats", map[string]string{"election-timeout": "499"},
			[]OptionRefusal{{"election-timeout", "499 ms is less than five times heartbeat-interval, which is 100 ms"}}},
		{"heartbeats slower than a fifth of an election", map[string]string{"heartbeat-interval": "201"},
			[]OptionRefusal{{"election-timeout", "1000 ms is less than five times heartbeat-interval, which is 201 ms"}}},
		{"the slowest of both", map[string]string{"heartbeat-interval": "10000", "election-timeout": "50000"}, nil},
		{"a least TLS above the most", map[string]string{"tls-min-version": "TLS1.3", "tls-max-version": "TLS1.2"},
			[]OptionRefusal{{"tls-max-version", "it is below tls-min-version"}}},
		{"an octal election", map[string]string{"election-timeout": "0763"},
			[]OptionRefusal{{"election-timeout", "499 ms is less than five times heartbeat-interval, which is 100 ms"}}},
		{"an octal heartbeat", map[string]string{"heartbeat-interval": "0310"}, nil},
		{"one TLS", map[string]string{"tls-min-version": "TLS1.2", "tls-max-version": "TLS1.2", "cipher-suites": "TLS_AES_128_GCM_SHA256"}, nil},
		{"cipher suites of TLS 1.3 alone", map[string]string{"tls-min-version": "TLS1.3", "cipher-suites": "TLS_AES_128_GCM_SHA256"},
			[]OptionRefusal{{"cipher-suites", "with the tls-min-version TLS1.3 there is nothing to choose"}}},
		{"values that are bad in themselves are told alone", map[string]string{"heartbeat-interval": "0", "tls-min-version": "TLS1.3", "tls-max-version": "TLS1.2"},
			[]OptionRefusal{{"heartbeat-interval", "its value must be a whole number from 1 to 10000"}}},
	} {
		t.Run(test.does, func(t *testing.T) {
			intent := cluster.Intent{Version: "3.6.16", Options: map[string]string{}}
			for name, value := range test.options {
				intent.Options[cluster.OptionVariable(name)] = value
			}
			if diff := cmp.Diff(test.want, RefusedOptions(intent)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRefusalsComeByName(t *testing.T) {
	intent := cluster.Intent{Version: "3.6.16", Options: map[string]string{"ETCD_WAL_DIR": "/w", "ETCD_NAME": "n", "ETCD_METRICS": "basic"}}
	var names []string
	for _, refusal := range RefusedOptions(intent) {
		names = append(names, refusal.Name)
	}
	if diff := cmp.Diff([]string{"name", "wal-dir"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEtcd37GetsNoExperimentalFlag(t *testing.T) {
	for _, o := range options {
		if strings.HasPrefix(o.nameIn(7), "experimental-") {
			t.Errorf("--%s would stop etcd 3.7", o.nameIn(7))
		}
	}
	for _, arg := range args(founding(makeCluster(version("3.7.0")))) {
		if strings.Contains(arg, "experimental") {
			t.Errorf("%s would stop etcd 3.7", arg)
		}
	}
}

func TestTheUsersQuotaReplacesTheDefault(t *testing.T) {
	var quotas []string
	for _, arg := range args(started(makeCluster(withOption("quota-backend-bytes", "123456789")))) {
		if strings.HasPrefix(arg, "--quota-backend-bytes=") {
			quotas = append(quotas, arg)
		}
	}
	if diff := cmp.Diff([]string{"--quota-backend-bytes=123456789"}, quotas); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
