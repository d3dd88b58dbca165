{{/* Names and labels. */}}

{{- define "entrypoint.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what Kubernetes and this chart append to it. */}}
{{- define "entrypoint.fullname" -}}
{{- $name := include "entrypoint.name" . -}}
{{- if .Values.fullnameOverride -}}
{{-   .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{-   .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{-   printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of a Service is stricter than others before Kubernetes 1.34: a DNS label that begins with a letter. */}}
{{- define "entrypoint.serviceName" -}}
{{- $name := include "entrypoint.fullname" . | replace "." "-" -}}
{{- ternary (printf "svc-%s" $name) $name (regexMatch "^[0-9]" $name) -}}
{{- end -}}

{{- define "entrypoint.selectorLabels" -}}
app.kubernetes.io/name: {{ include "entrypoint.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "entrypoint.labels" -}}
{{- $own := dict
      "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/version" .Chart.AppVersion
      "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (merge (include "entrypoint.selectorLabels" . | fromYaml) .Values.commonLabels $own) -}}
{{- end -}}

{{/* The metadata of an object. Called with {root, name, suffix, labels, annotations, namespace}, of which only root must be there. */}}
{{- define "entrypoint.metadata" -}}
name: {{ .name | default (include "entrypoint.fullname" .root) }}{{ .suffix | default "" }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- toYaml (merge (include "entrypoint.labels" .root | fromYaml) (.labels | default dict)) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Others than those of the pods: no Service may send requests to the pod of `helm test`. */}}
{{- define "entrypoint.testLabels" -}}
app.kubernetes.io/name: {{ include "entrypoint.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What only the observer's Service has, so that a ServiceMonitor finds it and not the other one. */}}
{{- define "entrypoint.observerLabels" -}}
app.kubernetes.io/component: observer
{{- end -}}

{{- define "entrypoint.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "entrypoint.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "entrypoint.configMapName" -}}
{{- .Values.existingConfigMap | default (include "entrypoint.fullname" .) -}}
{{- end -}}

{{/* What `--set` may have made a number of. */}}
{{- define "entrypoint.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* An image by its parts. Called with {image, tag}: `tag` is the default. */}}
{{- define "entrypoint.image" -}}
{{- if .image.digest -}}
{{-   printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{-   printf "%s:%s" .image.repository (include "entrypoint.text" (.image.tag | default .tag)) -}}
{{- end -}}
{{- end -}}
