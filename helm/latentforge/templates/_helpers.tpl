{{- define "latentforge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "latentforge.fullname" -}}
{{- if contains (include "latentforge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "latentforge.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "latentforge.selector" -}}
app.kubernetes.io/name: {{ include "latentforge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "latentforge.labels" -}}
{{ include "latentforge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name of the ConfigMap or Secret with the tenants file; empty where there is none. The server
would not start with roots outside its own. */}}
{{- define "latentforge.tenants" -}}
{{- with .Values.tenants -}}
{{- if and .existingConfigMap .existingSecret -}}
{{- fail "tenants.existingConfigMap and tenants.existingSecret: give one of them" -}}
{{- end -}}
{{- range $tenant, $entry := .limits -}}
{{- range $entry.allowed_roots -}}
{{- if not (hasPrefix (printf "%s/" (clean $.Values.models.mountPath)) (printf "%s/" (clean .))) -}}
{{- fail (printf "tenants.limits.%s.allowed_roots: %s does not lie beneath models.mountPath %s" $tenant . $.Values.models.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .existingSecret -}}
{{- .existingSecret -}}
{{- else if .existingConfigMap -}}
{{- .existingConfigMap -}}
{{- else if .limits -}}
{{- printf "%s-tenants" (include "latentforge.fullname" $) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A flag for each of server.limits. */}}
{{- define "latentforge.serverLimits" -}}
{{- range $key, $value := . }}
- --{{ kebabcase $key }}={{ if kindIs "string" $value }}{{ $value }}{{ else }}{{ int64 $value }}{{ end }}
{{- end }}
{{- end -}}

{{- define "latentforge.tag" -}}
{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "latentforge.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "latentforge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "latentforge.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
