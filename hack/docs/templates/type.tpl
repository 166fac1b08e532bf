{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}
## {{ $type.Name }}
{{ $type.Doc }}
{{- if $type.References }}

Used by {{ range $i, $reference := $type.SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $reference }}{{ end }}.
{{- end }}
{{ if $type.Members }}
| field | type | what it is | default | limits |
| --- | --- | --- | --- | --- |
{{- if $type.GVK }}
| `apiVersion` | string | `{{ $type.GVK.Group }}/{{ $type.GVK.Version }}` | | required |
| `kind` | string | `{{ $type.GVK.Kind }}` | | required |
{{- end }}
{{- range $type.Members }}
| `{{ .Name }}` | {{ markdownRenderType .Type }} | {{ template "type_members" . }} | {{ with .Default }}`{{ . | replace "{  }" "{}" }}`{{ end }} | {{ template "limits" .Validation }} |
{{- end }}
{{ end -}}
{{- if $type.EnumValues }}
| value | what it means |
| --- | --- |
{{- range $type.EnumValues }}
| `{{ .Name }}` | {{ $doc := markdownRenderFieldDoc .Doc | trimSuffix "<br />" | replace "<br />" " " }}{{ regexReplaceAll "^[A-Za-z]+ " $doc "" }} |
{{- end }}
{{ end -}}
{{- end -}}
{{- end -}}
