{{/* The container that runs the entrypoint. */}}

{{- define "entrypoint.container" -}}
name: entrypoint
image: {{ include "entrypoint.image" (dict "image" .Values.image) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if .Values.inject.enabled }}
command: [/opt/entrypoint/bin/entrypoint, run, -c, /etc/entrypoint/config.yaml]
{{- else }}
{{- with .Values.command }}
command:
  {{- include "entrypoint.texts" . | trim | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.args }}
args:
  {{- include "entrypoint.texts" (prepend . "--") | trim | nindent 2 }}
{{- end }}
ports:
  {{- include "entrypoint.containerPorts" . | nindent 2 }}
env:
  {{- include "entrypoint.env" . | trim | nindent 2 }}
{{- if or .Values.existingSecret .Values.extraEnvFrom }}
envFrom:
  {{- with .Values.existingSecret }}
  - secretRef:
      name: {{ . }}
  {{- end }}
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if eq .Values.kind "Deployment" }}
startupProbe:
  {{- include "entrypoint.startupProbe" . | nindent 2 }}
readinessProbe:
  {{- include "entrypoint.probe" (dict "probe" .Values.readinessProbe "path" "/readyz") | nindent 2 }}
{{- end }}
livenessProbe:
  {{- include "entrypoint.probe" (dict "probe" .Values.livenessProbe "path" "/livez") | nindent 2 }}
{{- with .Values.preStop.sleepSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int . }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/entrypoint
    readOnly: true
  - name: run
    mountPath: /run/entrypoint
  - name: tmp
    mountPath: /tmp
  {{- if .Values.inject.enabled }}
  - name: inject
    mountPath: /opt/entrypoint
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A list of words, of which some may look like numbers. */}}
{{- define "entrypoint.texts" -}}
{{- range . }}
- {{ include "entrypoint.text" . | quote }}
{{- end }}
{{- end -}}

{{/* A port gets the name of its socket where that is a name for ports: 15 letters at most, with one letter at least. */}}
{{- define "entrypoint.containerPorts" -}}
- name: observer
  containerPort: {{ include "entrypoint.observerPort" . }}
  protocol: TCP
{{- range include "entrypoint.sockets" . | fromJsonArray }}
- containerPort: {{ int .port }}
  {{- if and (le (len .name) 15) (regexMatch "[a-z]" .name) (not (contains "--" .name)) (ne .name "observer") }}
  name: {{ .name }}
  {{- end }}
  protocol: TCP
{{- end }}
{{- end -}}

{{- define "entrypoint.env" -}}
{{- $own := list -}}
{{- range .Values.extraEnv -}}
{{-   $own = append $own .name -}}
{{- end -}}
{{- $requests := .Values.resources.requests | default dict -}}
{{- range list "HOME" "TMPDIR" -}}
{{-   if not (has . $own) }}
- name: {{ . }}
  value: /tmp
{{-   end -}}
{{- end -}}
{{- if and $requests.cpu (not (has "ENTRYPOINT_CPUS" $own)) }}
- name: ENTRYPOINT_MILLICPUS
  valueFrom:
    resourceFieldRef:
      containerName: entrypoint
      resource: requests.cpu
      divisor: 1m
{{- /* The reference alone would be rounded up to whole CPUs. */}}
- name: ENTRYPOINT_CPUS
  value: $(ENTRYPOINT_MILLICPUS)m
{{- end -}}
{{- if .Values.existingConfigMap }}
{{ include "entrypoint.overlay" . }}
{{- end -}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* A probe of the observer, or the user's own. Called with {probe, path}. */}}
{{- define "entrypoint.probe" -}}
{{- $probe := deepCopy .probe -}}
{{- if not (or $probe.httpGet $probe.exec $probe.tcpSocket $probe.grpc) -}}
{{-   $_ := set $probe "httpGet" (dict "path" .path "port" "observer") -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end -}}

{{- define "entrypoint.startupProbe" -}}
{{- $probe := deepCopy .Values.startupProbe -}}
{{- if not $probe.failureThreshold -}}
{{-   $period := $probe.periodSeconds | default 10 -}}
{{-   $_ := set $probe "failureThreshold" (divf (include "entrypoint.startSeconds" .) $period | ceil | int | max 1) -}}
{{- end -}}
{{- include "entrypoint.probe" (dict "probe" $probe "path" "/startupz") -}}
{{- end -}}
