{{- define "type_members" -}}
{{- if and (eq .Name "metadata") (not .Doc) }}as of every Kubernetes object{{ else }}{{ markdownRenderFieldDoc .Doc | replace "<br />" " " }}{{ end -}}
{{- end -}}
{{- define "limits" -}}
{{- $first := true -}}
{{- range . -}}
{{- if not (hasPrefix "Optional" .) -}}
{{- if not $first }}, {{ end -}}
{{- $first = false -}}
{{- if hasPrefix "Required" . }}required{{ else }}`{{ . }}`{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
