package cluster

import "testing"

func TestTellsTheVolumeOfAMemberFromAnyOther(t *testing.T) {
	remembered := VolumeIdentity{Claim: "claim-1", Name: "pv-1", UID: "uid-1", Source: "csi://driver/handle-1"}
	withoutUID := VolumeIdentity{Claim: "claim-1", Name: "pv-1"}
	for name, test := range map[string]struct {
		remembered, present VolumeIdentity
		want                bool
	}{
		"nothing changed": {remembered, remembered, true},
		"nothing changed, without the right to look":  {withoutUID, withoutUID, true},
		"the right to look was taken away":            {remembered, withoutUID, true},
		"the right to look was given":                 {withoutUID, remembered, true},
		"a claim made again is bound to the volume":   {remembered, VolumeIdentity{"claim-2", "pv-1", "uid-1", remembered.Source}, true},
		"the source is written in another way":        {remembered, VolumeIdentity{"claim-1", "pv-1", "uid-1", ""}, true},
		"the claim is not bound yet":                  {remembered, VolumeIdentity{Claim: "claim-1"}, false},
		"nothing was remembered":                      {VolumeIdentity{}, remembered, false},
		"a claim made again has a new volume":         {remembered, VolumeIdentity{"claim-2", "pv-2", "uid-2", "csi://driver/handle-2"}, false},
		"the claim is bound to another volume":        {remembered, VolumeIdentity{"claim-1", "pv-2", "uid-2", "csi://driver/handle-2"}, false},
		"a restore under the old names":               {remembered, VolumeIdentity{"claim-2", "pv-1", "uid-2", "csi://driver/handle-2"}, false},
		"the volume's object was made again":          {remembered, VolumeIdentity{"claim-1", "pv-1", "uid-2", remembered.Source}, false},
		"it was made again with claim and source":     {remembered, VolumeIdentity{"claim-2", "pv-1", "uid-2", remembered.Source}, false},
		"another claim and nobody may look":           {withoutUID, VolumeIdentity{Claim: "claim-2", Name: "pv-1"}, false},
		"another name and nobody may look":            {withoutUID, VolumeIdentity{Claim: "claim-1", Name: "pv-2"}, false},
		"another claim and nobody could look earlier": {withoutUID, VolumeIdentity{"claim-2", "pv-1", "uid-1", remembered.Source}, false},
	} {
		if got := SameVolume(test.remembered, test.present); got != test.want {
			t.Errorf("%s: the same volume: %v, want %v", name, got, test.want)
		}
	}
}

func TestReadsAVolumeIdentityAsItIsWritten(t *testing.T) {
	for text, want := range map[string]VolumeIdentity{
		"claim-1/pv-1": {Claim: "claim-1", Name: "pv-1"}, "": {}, "/": {}, "claim-1": {}, "claim-1/": {}, "/pv-1": {},
	} {
		got := ParseVolumeIdentity(text)
		if got != want {
			t.Errorf("%q is read as %+v", text, got)
		}
		if got.Name != "" && got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
}
