{{/* How long a pod may take to stop and to start; both follow from `config`. */}}

{{/* The longest that stopping can take, as entrypoint/config/grace.py has it. Called with the configuration; JSON: {seconds:
     rounded up, sum: where they come from, unknown: {PATH: what only the container will know}}. */}}
{{- define "entrypoint.stopBudget" -}}
{{- $pools := .pools | default dict -}}
{{- $unknown := dict -}}
{{- $delay := (.shutdown | default dict).drain_delay -}}
{{- if or (kindIs "invalid" $delay) (eq (toString $delay) "auto") -}}
{{-   $delay = 5 -}}{{/* inside Kubernetes */}}
{{- end -}}
{{- $path := "config.shutdown.drain_delay" -}}
{{- $delay = float64 (include "entrypoint.seconds" (dict "value" $delay "path" $path "unknown" $unknown)) -}}
{{- $begins := dict -}}
{{- $takes := dict -}}
{{- $waits := dict -}}
{{- range $name, $pool := $pools -}}
{{-   $stop := ($pool | default dict).stop | default dict -}}
{{-   $path := printf "config.pools.%s.stop" $name -}}
{{-   $timeout := dict "value" $stop.timeout "default" 20 "path" (printf "%s.timeout" $path) "unknown" $unknown -}}
{{-   $_ := set $takes $name (float64 (include "entrypoint.seconds" $timeout)) -}}
{{-   $own := dict "value" $stop.delay "default" $delay "path" (printf "%s.delay" $path) "unknown" $unknown -}}
{{-   $_ := set $begins $name (float64 (include "entrypoint.seconds" $own)) -}}
{{-   $_ := set $waits $name list -}}
{{- end -}}
{{- range $name, $others := include "entrypoint.after" . | fromJson -}}
{{-   range $others -}}{{/* those stop when this one has stopped */}}
{{-     $_ := set $waits . (append (get $waits .) $name) -}}
{{-   end -}}
{{- end -}}
{{- $table := include "entrypoint.timetable" (dict "begins" $begins "takes" $takes "waits" $waits) | fromJson -}}
{{- $last := "" -}}
{{- range $name, $end := $table.ends -}}
{{-   if or (not $last) (gt $end (get $table.ends $last)) -}}
{{-     $last = $name -}}
{{-   end -}}
{{- end -}}
{{- $total := 2.0 -}}{{/* 1 s to sweep what is left, 1 s of margin */}}
{{- $sum := "2" -}}
{{- if and $last (not $table.cycle) -}}
{{-   $total = addf $total (get $table.ends $last) -}}
{{-   $name := $last -}}
{{-   range until (len $takes) -}}
{{-     if $name -}}
{{-       $sum = printf "%s %v + %s" $name (get $takes $name) $sum -}}
{{-       if not (hasKey $table.before $name) -}}
{{-         $sum = printf "drain delay %v + %s" (get $begins $name) $sum -}}
{{-       end -}}
{{-       $name = get $table.before $name -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- dict "seconds" (round $total 6 | ceil) "sum" $sum "unknown" $unknown "cycle" $table.cycle | toJson -}}
{{- end -}}

{{/* The time that the pod needs to stop, as JSON like that of stopBudget; it includes the preStop sleep, and 5 s for a slow node. */}}
{{- define "entrypoint.graceBudget" -}}
{{- $budget := include "entrypoint.stopBudget" .Values.config | fromJson -}}
{{- $sleep := .Values.preStop.sleepSeconds | default 0 -}}
{{- $sum := printf "%s + 5" $budget.sum -}}
{{- if $sleep -}}
{{-   $sum = printf "preStop sleep %v + %s" $sleep $sum -}}
{{- end -}}
{{- merge (dict "seconds" (addf $budget.seconds $sleep 5) "sum" $sum) $budget | toJson -}}
{{- end -}}

{{- define "entrypoint.gracePeriod" -}}
{{- $own := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $own -}}
{{-   $own = (include "entrypoint.graceBudget" . | fromJson).seconds -}}
{{- end -}}
{{- int64 $own -}}
{{- end -}}

{{/* What is left for the master: the time of the preStop sleep is not. */}}
{{- define "entrypoint.masterGracePeriod" -}}
{{- printf "%ds" (sub (include "entrypoint.gracePeriod" . | int64) (.Values.preStop.sleepSeconds | default 0 | int64)) -}}
{{- end -}}

{{/* How long a pod may take until its startup probe must have succeeded, as JSON: {seconds, unknown}. */}}
{{- define "entrypoint.startBudget" -}}
{{- $unlimited := 3600.0 -}}
{{- $unknown := dict -}}
{{- $pools := .pools | default dict -}}
{{- $first := 0.0 -}}
{{- range $index, $init := .init -}}
{{-   $path := printf "config.init[%d].timeout" $index -}}
{{-   $timeout := dict "value" ($init | default dict).timeout "default" 0 "path" $path "unknown" $unknown -}}
{{-   $first = addf $first (include "entrypoint.seconds" $timeout | float64 | default $unlimited) -}}
{{- end -}}
{{- $begins := dict -}}
{{- $takes := dict -}}
{{- range $name, $pool := $pools -}}
{{-   $path := printf "config.pools.%s.boot_timeout" $name -}}
{{-   $timeout := dict "value" ($pool | default dict).boot_timeout "default" 60 "path" $path "unknown" $unknown -}}
{{-   $_ := set $takes $name (include "entrypoint.seconds" $timeout | float64 | default $unlimited) -}}
{{-   $_ := set $begins $name $first -}}
{{- end -}}
{{- $waits := include "entrypoint.after" . | fromJson -}}
{{- $table := include "entrypoint.timetable" (dict "begins" $begins "takes" $takes "waits" $waits) | fromJson -}}
{{- $longest := $first -}}
{{- range $name, $pool := $pools -}}
{{-   if ne (toString ($pool | default dict).critical) "false" -}}{{/* /startupz does not wait for the others */}}
{{-     $longest = maxf $longest (get $table.ends $name) -}}
{{-   end -}}
{{- end -}}
{{- dict "seconds" (round (addf $longest 30) 6 | ceil) "unknown" $unknown | toJson -}}
{{- end -}}

{{- define "entrypoint.startSeconds" -}}
{{- $own := .Values.startupBudgetSeconds -}}
{{- if kindIs "invalid" $own -}}
{{-   $own = ternary 300 (include "entrypoint.startBudget" .Values.config | fromJson).seconds (not (empty .Values.existingConfigMap)) -}}
{{- end -}}
{{- int64 $own -}}
{{- end -}}
