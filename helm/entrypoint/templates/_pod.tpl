{{/* The template of the pods, the same for a Deployment and a Job. */}}

{{- define "entrypoint.pod" -}}
metadata:
  labels:
    {{- toYaml (merge (include "entrypoint.selectorLabels" . | fromYaml) .Values.podLabels .Values.commonLabels) | nindent 4 }}
  annotations:
    {{- $own := dict "kubectl.kubernetes.io/default-container" "entrypoint" }}
    {{- if and .Values.config (ne (include "entrypoint.watch" .) "true") }}
    {{-   $_ := set $own "checksum/config" (include "entrypoint.config" . | sha256sum) }}
    {{- end }}
    {{- toYaml (merge (dict) .Values.podAnnotations $own) | nindent 4 }}
spec:
  serviceAccountName: {{ include "entrypoint.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "entrypoint.gracePeriod" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .Values.inject.enabled .Values.initContainers }}
  initContainers:
    {{- if .Values.inject.enabled }}
    - {{ include "entrypoint.inject" . | nindent 6 | trim }}
    {{- end }}
    {{- with .Values.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "entrypoint.container" . | nindent 6 | trim }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "entrypoint.configMapName" . }}
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    - name: tmp
      emptyDir: {{ toJson .Values.tmp }}
    {{- if .Values.inject.enabled }}
    - name: inject
      emptyDir: {}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "entrypoint.spread" . | fromYamlArray }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
  {{- with get $.Values $field }}
  {{ $field }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with .Values.extraPodSpec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Copies the entrypoint into the pod. Its own interpreter does it: there may be no shell in the image. The folder's
     entries, and not the folder: whoever this runs as, the volume is somebody else's. */}}
{{- define "entrypoint.inject" -}}
name: inject
image: {{ include "entrypoint.image" (dict "image" .Values.inject.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.inject.image.pullPolicy }}
command:
  - /opt/entrypoint/libexec/python3
  - -I
  - -S
  - -c
  - |
    {{- .Files.Get "files/inject.py" | trim | nindent 4 }}
  - /opt/entrypoint
  - /inject
{{- with .Values.inject.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: inject
    mountPath: /inject
{{- end -}}

{{- define "entrypoint.spread" -}}
{{- if not (kindIs "invalid" .Values.topologySpreadConstraints) -}}
{{-   toYaml .Values.topologySpreadConstraints -}}
{{- else -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "entrypoint.selectorLabels" . | nindent 6 }}
  {{- if eq .Values.kind "Deployment" }}
  matchLabelKeys: [pod-template-hash] {{/* else old pods would push new ones to the same node */}}
  {{- end }}
{{- end -}}
{{- end -}}
