package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestWhoMakesTheWebhooksCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		condition string
		want      certificateSource
	}{
		"in a plain installation, the operator":     {nil, "", fromOperator},
		"where OLM says that it is there, OLM":      {nil, "etcd-warden.v0.2.0", fromOLM},
		"for some namespaces, nobody":               {[]string{"--watch-namespaces=one,two"}, "", fromNowhere},
		"for some namespaces, if asked for in word": {[]string{"--watch-namespaces=one", "--webhook-certificate=self"}, "", fromOperator},
		"nobody, if asked for in words":             {[]string{"--webhook-certificate=none"}, "etcd-warden.v0.2.0", fromNowhere},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(operatorConditionVariable, test.condition)
			o, err := parseOptions(test.args)
			if err != nil {
				t.Fatal(err)
			}
			if o.certificate != test.want {
				t.Errorf("certificate source = %s, want %s", o.certificate, test.want)
			}
		})
	}
}

func TestAnUnknownMakerOfTheCertificateIsRefused(t *testing.T) {
	if _, err := parseOptions([]string{"--webhook-certificate=cert-manager"}); err == nil {
		t.Error("it was accepted")
	}
}

// part is a manager or a webhook.
type part struct {
	started chan struct{}
	ended   chan struct{}
	fail    chan error
}

func newPart() *part {
	return &part{started: make(chan struct{}), ended: make(chan struct{}), fail: make(chan error, 1)}
}

func (p *part) Start(ctx context.Context) error {
	close(p.started)
	defer close(p.ended)
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.fail:
		return err
	}
}

func TestTheWebhookOutlivesTheManager(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	mgr, hook := newPart(), newPart()
	served := make(chan error, 1)
	const after = 200 * time.Millisecond
	go func() { served <- serve(ctx, mgr, hook, after) }()
	<-mgr.started
	<-hook.started
	begin := time.Now()
	cancel()
	<-mgr.ended
	select {
	case <-hook.ended:
		if time.Since(begin) < after {
			t.Error("the webhook ended with the manager")
		}
	default:
	}
	<-hook.ended
	if lasted := time.Since(begin); lasted < after {
		t.Errorf("the webhook served on for %v, want %v", lasted, after)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAFailureOfEitherEndsBoth(t *testing.T) {
	broken := errors.New("the port is taken")
	for name, which := range map[string]func(mgr, hook *part) *part{
		"the webhook": func(_, hook *part) *part { return hook },
		"the manager": func(mgr, _ *part) *part { return mgr },
	} {
		t.Run(name, func(t *testing.T) {
			mgr, hook := newPart(), newPart()
			which(mgr, hook).fail <- broken
			if err := serve(t.Context(), mgr, hook, time.Hour); !errors.Is(err, broken) {
				t.Errorf("error: %v", err)
			}
			<-mgr.ended
			<-hook.ended
		})
	}
}
