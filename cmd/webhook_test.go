package main

import "testing"

func TestChoosesWhoIssuesTheWebhooksCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		condition string
		want      certificateIssuer
	}{
		"itself in a plain installation":       {nil, "", issuerSelf},
		"OLM where OLM installed it":           {nil, "etcd-warden.v0.3.0", issuerOLM},
		"itself where the flag says so":        {[]string{"--certificate-issuer=self"}, "etcd-warden.v0.3.0", issuerSelf},
		"OLM where the flag says so":           {[]string{"--certificate-issuer=olm"}, "", issuerOLM},
		"none for an issuer that is not known": {[]string{"--certificate-issuer=cert-manager"}, "", ""},
		"none for an unknown argument":         {[]string{"self"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(operatorConditionVariable, test.condition)
			o, err := parseWebhookOptions(test.args)
			if (err != nil) != (test.want == "") {
				t.Fatal(err)
			}
			if err == nil && o.issuer != test.want {
				t.Errorf("the issuer is %s, want %s", o.issuer, test.want)
			}
		})
	}
}
