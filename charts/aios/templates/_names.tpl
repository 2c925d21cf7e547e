{{/* The name of everything of this release; `aios` once, however the release is called. */}}
{{- define "aios.name" -}}
{{- if contains "aios" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-aios" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes for a component: (dict "root" $ "component" name) */}}
{{- define "aios.selector" -}}
app.kubernetes.io/name: aios
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "aios.labels" -}}
{{ include "aios.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "aios.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "aios.busUrl" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "aios.name" . }}-nats:4222
{{- else -}}
{{ required "nats.url is needed when nats.enabled is false" .Values.nats.url }}
{{- end -}}
{{- end -}}

{{- define "aios.busSecret" -}}
{{ .Values.secrets.bus | default (printf "%s-bus" (include "aios.name" .)) }}
{{- end -}}

{{- define "aios.tokenSecret" -}}
{{ .Values.secrets.token | default (printf "%s-token" (include "aios.name" .)) }}
{{- end -}}
