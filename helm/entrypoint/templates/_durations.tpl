{{/* Durations of `config`, read as the entrypoint reads them. */}}

{{/* Seconds of `500ms`, `1m30s`, `2h`, or a number of seconds. Called with {value, default, path, unknown}: what only the
     container will know, `${NAME}`, is noted in the dict `unknown` by its path, and counts as 0. */}}
{{- define "entrypoint.seconds" -}}
{{- $value := .value -}}
{{- if kindIs "invalid" $value -}}
{{-   $value = .default -}}
{{- end -}}
{{- $text := toString $value -}}
{{- $number := "[0-9]{1,15}([.][0-9]{1,9})?" -}}
{{- if not (kindIs "string" $value) -}}
{{-   float64 $value -}}
{{- else if contains "${" $text -}}
{{-   $_ := set .unknown .path $text -}}
0
{{- else if regexMatch (printf "^%s$" $number) $text -}}
{{-   float64 $text -}}
{{- else if and $text (regexMatch (printf "^(%sh)?(%sm)?(%ss)?(%sms)?$" $number $number $number $number) $text) -}}
{{-   $seconds := 0.0 -}}
{{-   range regexFindAll "[0-9.]+(ms|h|m|s)" $text -1 -}}
{{-     $unit := regexFind "[a-z]+" . -}}
{{-     $count := float64 (trimSuffix $unit .) -}}
{{-     $seconds = addf $seconds (mulf $count (get (dict "h" 3600 "m" 60 "s" 1 "ms" 0.001) $unit)) -}}
{{-   end -}}
{{-   $seconds -}}
{{- else -}}
{{-   fail (printf "cannot render %s: not a duration such as 500ms, 30s, 1m30s: %q" .path $text) -}}
{{- end -}}
{{- end -}}

{{/* When each of some things that wait for each other has ended, as JSON: {ends: {NAME: seconds}, before: {NAME: what it
     waited for longest}, cycle}. Called with {begins: {NAME: seconds}, takes: {NAME: seconds}, waits: {NAME: [NAME]}}. */}}
{{- define "entrypoint.timetable" -}}
{{- $begins := deepCopy .begins -}}
{{- $takes := .takes -}}
{{- $waits := .waits -}}
{{- $before := dict -}}
{{- $changed := true -}}
{{- range until (int (add1 (len $takes))) -}}
{{-   if $changed -}}
{{-     $changed = false -}}
{{-     range $name, $others := $waits -}}
{{-       range $others -}}
{{-         $end := addf (get $begins .) (get $takes .) -}}
{{-         if gt $end (float64 (get $begins $name)) -}}
{{-           $_ := set $begins $name $end -}}
{{-           $_ := set $before $name . -}}
{{-           $changed = true -}}
{{-         end -}}
{{-       end -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- $ends := dict -}}
{{- range $name, $begin := $begins -}}
{{-   $_ := set $ends $name (addf $begin (get $takes $name)) -}}
{{- end -}}
{{- dict "ends" $ends "before" $before "cycle" $changed | toJson -}}
{{- end -}}

{{/* Which pools wait for which, as JSON: {NAME: [NAME]}; names that do not exist are left out. */}}
{{- define "entrypoint.after" -}}
{{- $pools := .pools | default dict -}}
{{- $after := dict -}}
{{- range $name, $pool := $pools -}}
{{-   $others := list -}}
{{-   range ($pool | default dict).after -}}
{{-     if hasKey $pools (toString .) -}}
{{-       $others = append $others . -}}
{{-     end -}}
{{-   end -}}
{{-   $_ := set $after $name $others -}}
{{- end -}}
{{- toJson $after -}}
{{- end -}}
