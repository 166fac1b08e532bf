//go:build integration

package etcd

import (
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// The bounds of options are etcd's own: it ends over what is refused, and starts with the values beside it.
func TestEtcdEndsOverTheValuesThatAreRefusedAndStartsWithTheNext(t *testing.T) {
	type options map[string]string
	eachMinor(t, func(t *testing.T, l *lab) {
		check := "compact-hash-check-time"
		if l.minor == "3.5" {
			check = "experimental-" + check
		}
		for _, c := range []struct{ starts, ends options }{
			{options{"heartbeat-interval": "1"}, options{"heartbeat-interval": "0"}},
			{options{"heartbeat-interval": "200"}, options{"heartbeat-interval": "201"}},
			{options{"heartbeat-interval": "0310"}, options{"heartbeat-interval": "0311"}},
			{options{"heartbeat-interval": "0x64"}, options{"heartbeat-interval": "08"}},
			{options{"heartbeat-interval": "1_0"}, options{"heartbeat-interval": "+10"}},
			{options{"election-timeout": "500"}, options{"election-timeout": "499"}},
			{options{"backend-batch-limit": "+010"}, options{"max-txn-ops": "+010"}},
			{options{"auto-compaction-retention": "08"}, options{"auto-compaction-retention": "0x8"}},
			{options{"election-timeout": "50000", "heartbeat-interval": "10000"}, options{"election-timeout": "50001"}},
			{options{check: "1ms"}, options{check: "0s"}},
			{options{"auto-compaction-retention": "1s"}, options{"auto-compaction-retention": "1ns"}},
			{options{"max-concurrent-streams": "4294967295"}, options{"max-concurrent-streams": "4294967296"}},
			{options{"cipher-suites": "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_RSA_WITH_RC4_128_SHA"}, options{"cipher-suites": "bogus"}},
			{options{"tls-min-version": "TLS1.3", "tls-max-version": "TLS1.3"}, options{"tls-min-version": "TLS1.3", "tls-max-version": "TLS1.2"}},
			{options{"tls-min-version": "TLS1.2", "cipher-suites": "TLS_AES_128_GCM_SHA256"}, options{"tls-min-version": "TLS1.3", "cipher-suites": "TLS_AES_128_GCM_SHA256"}},
		} {
			for _, test := range []struct {
				options options
				starts  bool
			}{{c.starts, true}, {c.ends, false}} {
				intent := cluster.Intent{Version: l.minor + ".99", Options: map[string]string{}}
				l.serverArguments = nil
				for name, value := range test.options {
					intent.Options[cluster.OptionVariable(name)] = value
					l.serverArguments = append(l.serverArguments, "--"+name+"="+value)
				}
				if refused := render.RefusedOptions(intent); test.starts != (len(refused) == 0) {
					t.Errorf("%v: refused %v", test.options, refused)
				}
				err := l.Start(t, "prod-0", rules.Initial{Members: []string{"prod-0"}, State: "new", Token: "token"})
				if test.starts != (err == nil) {
					t.Errorf("%v: etcd says %v", test.options, err)
				}
				if err == nil {
					l.Stop(t, "prod-0")
				}
				l.Wipe(t, "prod-0")
			}
		}
	})
}
