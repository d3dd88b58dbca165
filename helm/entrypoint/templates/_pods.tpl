{{/* How many pods there will be, and who decides it. */}}

{{- define "entrypoint.scaled" -}}
{{- and (eq .Values.kind "Deployment") (ne .Values.autoscaling.mode "none") -}}
{{- end -}}

{{/* Whether there may be more than one pod for long; of what somebody else scales it is not known, and assumed. */}}
{{- define "entrypoint.several" -}}
{{- if eq .Values.autoscaling.mode "none" -}}
{{-   gt (int .Values.replicaCount) 1 -}}
{{- else if eq .Values.autoscaling.mode "external" -}}
true
{{- else -}}
{{-   gt (int .Values.autoscaling.minReplicas) 1 -}}
{{- end -}}
{{- end -}}

{{- define "entrypoint.disruptionBudget" -}}
{{- if ne .Values.kind "Deployment" -}}
false
{{- else if kindIs "invalid" .Values.podDisruptionBudget.enabled -}}
{{-   include "entrypoint.several" . -}}
{{- else -}}
{{-   .Values.podDisruptionBudget.enabled -}}
{{- end -}}
{{- end -}}
