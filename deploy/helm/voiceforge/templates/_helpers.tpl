{{- define "voiceforge.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "voiceforge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "voiceforge.labels" -}}
{{ include "voiceforge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "voiceforge.secret" -}}
{{- default (include "voiceforge.name" .) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "voiceforge.claim" -}}
{{- default (include "voiceforge.name" .) .Values.persistence.existingClaim -}}
{{- end -}}
