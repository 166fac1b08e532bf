{{- define "gvList" -}}
{{- range . -}}
<!-- Generated from api/{{ .Version }} by `make docs`: edit the comments there. -->
# API reference: {{ .Version }}
{{ .Doc }}
`kubectl explain etcdcluster.spec --api-version={{ .GroupVersionString }}` shows the same. What the API server refuses, it explains with the field's path.
{{ range .SortedTypes }}{{ if hasPrefix "EtcdCluster" .Name }}{{ template "type" . }}{{ end }}{{ end -}}
{{ range .SortedTypes }}{{ if not (hasPrefix "EtcdCluster" .Name) }}{{ template "type" . }}{{ end }}{{ end }}
{{- end -}}
{{- end -}}
