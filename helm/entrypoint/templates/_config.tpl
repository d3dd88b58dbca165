{{/* The configuration, and what follows from it. */}}

{{- define "entrypoint.controlSocket" -}}
/run/entrypoint/control.sock
{{- end -}}

{{/* A Job's pods are replaced as a whole: the Job that runs was started for one configuration. */}}
{{- define "entrypoint.watch" -}}
{{- and (eq .Values.reload "hot") (eq .Values.kind "Deployment") -}}
{{- end -}}

{{/* config.yaml: the user's, and what is filled in where it is not written. */}}
{{- define "entrypoint.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $filled := dict
      "observer" (dict "bind" (printf ":%s" (include "entrypoint.observerPort" .)))
      "control" (dict "socket" (include "entrypoint.controlSocket" .))
      "reload" (dict "watch" (eq (include "entrypoint.watch" .) "true"))
      "shutdown" (dict "grace_period" (include "entrypoint.masterGracePeriod" .)) -}}
{{- range $section, $values := $filled -}}
{{-   $own := get $config $section | default dict -}}
{{-   range $key, $value := $values -}}
{{-     if not (hasKey $own $key) -}}
{{-       $_ := set $own $key $value -}}
{{-     end -}}
{{-   end -}}
{{-   $_ := set $config $section $own -}}
{{- end -}}
{{- with include "entrypoint.shutdownSignals" . | fromJsonArray -}}
{{-   $signals := $config.signals | default dict -}}
{{-   range . -}}
{{-     $_ := set $signals . "shutdown" -}}
{{-   end -}}
{{-   $_ := set $config "signals" $signals -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What the kubelet may send instead of SIGTERM when the image is not made for the entrypoint, as JSON: the STOPSIGNALs
     that images have, less those that the configuration gives a meaning, however it spells them. USR1 is not among them:
     it is forwarded, which has its uses. */}}
{{- define "entrypoint.shutdownSignals" -}}
{{- $found := list -}}
{{- if .Values.inject.enabled -}}
{{-   $mapped := list -}}
{{-   range $name, $_ := .Values.config.signals -}}
{{-     $mapped = append $mapped (toString $name | upper | trimPrefix "SIG") -}}
{{-   end -}}
{{-   range $name, $others := dict "INT" (list "2") "QUIT" (list "3") "WINCH" (list "28") "PWR" (list "30") "RTMIN+3" (list "37" "RTMAX-27") -}}
{{-     $spelled := false -}}
{{-     range append $others $name -}}
{{-       $spelled = or $spelled (has . $mapped) -}}
{{-     end -}}
{{-     if not $spelled -}}
{{-       $found = append $found $name -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The same for a ConfigMap that the chart does not write, as variables that are laid over it. */}}
{{- define "entrypoint.overlay" -}}
- name: ENTRYPOINT_OBSERVER__BIND
  value: {{ printf ":%s" (include "entrypoint.observerPort" .) | quote }}
- name: ENTRYPOINT_CONTROL__SOCKET
  value: {{ include "entrypoint.controlSocket" . }}
- name: ENTRYPOINT_RELOAD__WATCH
  value: {{ include "entrypoint.watch" . | quote }}
- name: ENTRYPOINT_SHUTDOWN__GRACE_PERIOD
  value: {{ include "entrypoint.masterGracePeriod" . | quote }}
{{- end -}}

{{/* The number of the port in an address that other pods can reach; empty where there is none. */}}
{{- define "entrypoint.reachablePort" -}}
{{- $bind := toString . -}}
{{- if not (regexMatch "^(unix:|fd:|localhost:|127[.]|[[]::1])|:0+$" $bind) -}}
{{-   regexFind ":[0-9]{1,5}$" $bind | trimPrefix ":" -}}
{{- end -}}
{{- end -}}

{{- define "entrypoint.observerPort" -}}
{{- $bind := (.Values.config.observer | default dict).bind | default ":9180" -}}
{{- include "entrypoint.reachablePort" $bind | default "9180" -}}
{{- end -}}

{{/* The TCP sockets that other pods can reach, as JSON: [{name, port}]. */}}
{{- define "entrypoint.sockets" -}}
{{- $found := list -}}
{{- range $name, $socket := .Values.config.sockets -}}
{{-   with include "entrypoint.reachablePort" ($socket | default dict).bind -}}
{{-     $found = append $found (dict "name" $name "port" (int .)) -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* What the Service offers, as JSON: [{name, port, targetPort, ...}]. */}}
{{- define "entrypoint.servicePorts" -}}
{{- $ports := .Values.service.ports -}}
{{- if not $ports -}}
{{-   range include "entrypoint.sockets" . | fromJsonArray -}}
{{-     $ports = append $ports (dict "name" .name "port" (int .port) "targetPort" (int .port) "protocol" "TCP") -}}
{{-   end -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}
