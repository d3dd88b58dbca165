{{/* What cannot be rendered: all of it at once, each with its reason. The schema has checked every value by itself. */}}

{{- define "entrypoint.check" -}}
{{- $problems := concat
      (include "entrypoint.problems.image" . | fromJsonArray)
      (include "entrypoint.problems.config" . | fromJsonArray)
      (include "entrypoint.problems.grace" . | fromJsonArray)
      (include "entrypoint.problems.scaling" . | fromJsonArray)
      (include "entrypoint.problems.job" . | fromJsonArray)
      (include "entrypoint.problems.others" . | fromJsonArray) -}}
{{- if $problems -}}
{{-   fail (printf "\ncannot render %s" (join "\ncannot render " $problems)) -}}
{{- end -}}
{{- end -}}

{{- define "entrypoint.problems.image" -}}
{{- $found := list -}}
{{- if not .Values.image.repository -}}
{{-   $found = append $found "image.repository: it is empty: give the name of your image" -}}
{{- end -}}
{{- if not (or .Values.image.tag .Values.image.digest) -}}
{{-   $found = append $found "image.tag: there is neither a tag nor a digest" -}}
{{- end -}}
{{- if and .Values.inject.enabled .Values.command -}}
{{-   $found = append $found "command: with inject.enabled it is /opt/entrypoint/bin/entrypoint" -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "entrypoint.problems.config" -}}
{{- $found := list -}}
{{- $config := .Values.config -}}
{{- $observer := $config.observer | default dict -}}
{{- if and .Values.existingConfigMap $config -}}
{{-   $found = append $found "config: there is an existingConfigMap as well" -}}
{{- else if and (not .Values.existingConfigMap) (not $config.pools) -}}
{{-   $found = append $found "config.pools: it is empty: say what to run, as in `--set config.pools.web.command={sleep,1000}`" -}}
{{- end -}}
{{- range $name, $pool := $config.pools -}}
{{-   $pool = $pool | default dict -}}
{{-   if not (or $pool.command $.Values.args) -}}
{{-     $found = append $found (printf "config.pools.%s.command: it is missing" $name) -}}
{{-   end -}}
{{-   range $pool.after -}}
{{-     if not (hasKey $config.pools (toString .)) -}}
{{-       $found = append $found (printf "config.pools.%s.after: no such pool: %s" $name .) -}}
{{-     end -}}
{{-   end -}}
{{-   range $pool.sockets -}}
{{-     if not (hasKey ($config.sockets | default dict) (toString .)) -}}
{{-       $found = append $found (printf "config.pools.%s.sockets: no such socket: %s" $name .) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- if eq (toString $observer.enabled) "false" -}}
{{-   $found = append $found "config.observer.enabled: the probes ask the observer" -}}
{{- end -}}
{{- if and $observer.bind (not (include "entrypoint.reachablePort" $observer.bind)) -}}
{{-   $found = append $found (printf "config.observer.bind: the probes cannot reach %s: give `:PORT`" $observer.bind) -}}
{{- end -}}
{{- if hasKey ($config.reload | default dict) "watch" -}}
{{-   $found = append $found "config.reload.watch: it follows from the value `reload`" -}}
{{- end -}}
{{- if hasKey ($config.shutdown | default dict) "grace_period" -}}
{{-   $found = append $found "config.shutdown.grace_period: it follows from the value `terminationGracePeriodSeconds`" -}}
{{- end -}}
{{- if and .Values.service.enabled (not .Values.service.ports) (eq .Values.kind "Deployment") -}}
{{-   range $name, $socket := $config.sockets -}}
{{-     $bind := toString ($socket | default dict).bind -}}
{{-     if and (contains "${" $bind) (not (hasPrefix "unix:" $bind)) -}}
{{-       $found = append $found (printf "service: only the container will know the port of config.sockets.%s.bind, %s: write it out, or give service.ports" $name $bind) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "entrypoint.problems.grace" -}}
{{- $found := list -}}
{{- $own := .Values.terminationGracePeriodSeconds -}}
{{- $sleep := .Values.preStop.sleepSeconds | default 0 -}}
{{- if and $sleep (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{-   $found = append $found (printf "preStop.sleepSeconds: Kubernetes 1.30 or newer is needed, and this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if .Values.existingConfigMap -}}
{{-   if kindIs "invalid" $own -}}
{{-     $found = append $found "terminationGracePeriodSeconds: it cannot be computed from an existingConfigMap: give it" -}}
{{-   else if le (float64 $own) (float64 $sleep) -}}
{{-     $found = append $found (printf "terminationGracePeriodSeconds: %v leaves nothing after the preStop sleep of %v" $own $sleep) -}}
{{-   end -}}
{{- else -}}
{{-   $budget := include "entrypoint.graceBudget" . | fromJson -}}
{{-   if $budget.cycle -}}
{{-     $found = append $found "config.pools: pools wait for each other by `after`" -}}
{{-   else if and $budget.unknown (kindIs "invalid" $own) -}}
{{-     range $path, $text := $budget.unknown -}}
{{-       $found = append $found (printf "terminationGracePeriodSeconds: only the container will know %s, %s: write a duration there, or give terminationGracePeriodSeconds" $path $text) -}}
{{-     end -}}
{{-   else if and (not $budget.unknown) (not (kindIs "invalid" $own)) -}}
{{-     if lt (float64 $own) $budget.seconds -}}
{{-       $found = append $found (printf "terminationGracePeriodSeconds: %v is less than %v, which stopping can take: %s" $own $budget.seconds $budget.sum) -}}
{{-     end -}}
{{-   end -}}
{{-   if kindIs "invalid" .Values.startupBudgetSeconds -}}
{{-     range $path, $text := (include "entrypoint.startBudget" .Values.config | fromJson).unknown -}}
{{-       $found = append $found (printf "startupBudgetSeconds: only the container will know %s, %s: write a duration there, or give startupBudgetSeconds" $path $text) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "entrypoint.problems.scaling" -}}
{{- $found := list -}}
{{- $scaling := .Values.autoscaling -}}
{{- $requests := .Values.resources.requests | default dict -}}
{{- $limits := .Values.resources.limits | default dict -}}
{{- if has $scaling.mode (list "hpa" "keda") -}}
{{-   if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{-     $found = append $found (printf "autoscaling.minReplicas: %v is more than maxReplicas, %v" $scaling.minReplicas $scaling.maxReplicas) -}}
{{-   end -}}
{{- end -}}
{{- if eq $scaling.mode "keda" -}}
{{-   if not $scaling.keda.triggers -}}
{{-     $found = append $found "autoscaling.keda.triggers: it is empty: say what to scale by" -}}
{{-   end -}}
{{- end -}}
{{- if eq $scaling.mode "hpa" -}}
{{-   if lt (int $scaling.minReplicas) 1 -}}
{{-     $found = append $found "autoscaling.minReplicas: only keda can scale to 0" -}}
{{-   end -}}
{{-   $cpu := $scaling.targetCPUUtilizationPercentage -}}
{{-   $memory := $scaling.targetMemoryUtilizationPercentage -}}
{{-   if and $cpu (not (or $requests.cpu $limits.cpu)) -}}
{{-     $found = append $found "autoscaling.targetCPUUtilizationPercentage: it is a part of resources.requests.cpu, which is missing" -}}
{{-   end -}}
{{-   if and $memory (not (or $requests.memory $limits.memory)) -}}
{{-     $found = append $found "autoscaling.targetMemoryUtilizationPercentage: it is a part of resources.requests.memory, which is missing" -}}
{{-   end -}}
{{-   if not (or $cpu $memory $scaling.metrics) -}}
{{-     $found = append $found "autoscaling.metrics: there is nothing to scale by" -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "entrypoint.problems.job" -}}
{{- $found := list -}}
{{- if eq .Values.kind "Job" -}}
{{-   if ne .Values.autoscaling.mode "none" -}}
{{-     $found = append $found (printf "autoscaling.mode: a Job is not scaled: %s" .Values.autoscaling.mode) -}}
{{-   end -}}
{{-   if .Values.podDisruptionBudget.enabled -}}
{{-     $found = append $found "podDisruptionBudget.enabled: a Job has none" -}}
{{-   end -}}
{{-   if .Values.serviceMonitor.enabled -}}
{{-     $found = append $found "serviceMonitor.enabled: a Job has no Service: use podMonitor" -}}
{{-   end -}}
{{-   range $name, $pool := .Values.config.pools -}}
{{-     $pool = $pool | default dict -}}
{{-     $policy := ($pool.restart | default dict).policy | default "always" -}}
{{-     if and (eq $policy "always") (ne (toString $pool.critical) "false") -}}
{{-       $found = append $found (printf "kind: the Job would never end: config.pools.%s has restart.policy always" $name) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "entrypoint.problems.others" -}}
{{- $found := list -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{-   $found = append $found "serviceMonitor.enabled: with podMonitor.enabled every pod would be scraped twice" -}}
{{- end -}}
{{- $known := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{-   range .rules -}}
{{-     $known = append $known .alert -}}
{{-   end -}}
{{- end -}}
{{- range .Values.prometheusRule.disabled -}}
{{-   if not (has . $known) -}}
{{-     $found = append $found (printf "prometheusRule.disabled: no such alert: %s" .) -}}
{{-   end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
