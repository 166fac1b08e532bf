{{- define "type_members" -}}
{{- if eq .Name "metadata" }}as of every Kubernetes object{{ else }}{{ markdownRenderFieldDoc .Doc | replace "<br />" " " }}{{ end -}}
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
