{{- /* What the schema cannot say. All that is wrong is told at once. */ -}}
{{- define "catchment.validate" -}}
{{- $v := .Values -}}
{{- $config := include "catchment.config" . | fromYaml -}}
{{- $wrong := list -}}
{{- $on := compact (splitList " " (include "catchment.components" .)) -}}
{{- $kafka := default (dict) $config.kafka -}}
{{- if and $on (not $kafka.brokers) }}{{ $wrong = append $wrong "config.kafka.brokers: name some brokers, such as [events-kafka-bootstrap.kafka.svc:9092]" }}{{ end -}}
{{- if or $kafka.embedded (default (dict) $config.postgres).embedded }}{{ $wrong = append $wrong "config: embedded is for `catchment up`; the services of this chart need a Kafka and a Postgres of their own" }}{{ end -}}
{{- $pgURL := (default (dict) $config.postgres).url -}}
{{- $pgSecret := and $v.secrets.postgres.existingSecret $v.secrets.postgres.urlKey -}}
{{- $needsPostgres := or $v.processor.enabled (eq $v.migrations.mode "hook") -}}
{{- if and $needsPostgres (not $pgURL) (not $pgSecret) }}{{ $wrong = append $wrong "secrets.postgres.existingSecret: the processor needs a database: name a Secret that holds its URL, or set config.postgres.url" }}{{ end -}}
{{- if and $v.archiver.enabled (not (default (dict) $config.archive).url) }}{{ $wrong = append $wrong "config.archive.url: the archiver needs a place, such as s3://bucket/prefix?region=eu-central-1" }}{{ end -}}
{{- if not (default (dict) $config.ingress).listen }}{{ $wrong = append $wrong "config.ingress.listen: expected an address such as :8080" }}{{ end -}}
{{- if and $v.receiver.tls.clientCASecret (not $v.receiver.tls.existingSecret) }}{{ $wrong = append $wrong "receiver.tls.clientCASecret: client certificates need receiver.tls.existingSecret beside it" }}{{ end -}}
{{- if and (eq (default "memory" (default (dict) $config.ingress.dedup).store) "redis") (not $v.secrets.dedup.existingSecret) (not (default (dict) $config.ingress.dedup).url) }}{{ $wrong = append $wrong "secrets.dedup.existingSecret: config.ingress.dedup.store is redis: name a Secret that holds its URL, or set config.ingress.dedup.url" }}{{ end -}}
{{- range $c, $tag := dict "image" $v.image.tag "tool.image" $v.tool.image.tag "receiver.image" $v.receiver.image.tag "processor.image" $v.processor.image.tag "archiver.image" $v.archiver.image.tag }}{{ if eq $tag "latest" }}{{ $wrong = append $wrong (printf "%s.tag: latest is another image tomorrow: expected a version, or a digest" $c) }}{{ end }}{{ end -}}
{{- range $c := list "receiver" "processor" "archiver" -}}
{{- $x := index $v $c -}}
{{- $address := (default (dict) (index $config (include "catchment.section" $c))).ops_listen -}}
{{- if and $x.enabled (regexMatch "^(127\\.|localhost:|\\[::1\\])" (toString $address)) }}{{ $wrong = append $wrong (printf "config.%s.ops_listen: the kubelet asks the pod's own address, where %s does not answer: expected one such as :9090" (include "catchment.section" $c) $address) }}{{ end -}}
{{- if and $x.autoscaling.enabled $x.scaledObject.enabled }}{{ $wrong = append $wrong (printf "%s: autoscaling.enabled and scaledObject.enabled exclude one another, for both would set the number of pods" $c) }}{{ end -}}
{{- if and $x.autoscaling.enabled (gt (int $x.autoscaling.minReplicas) (int $x.autoscaling.maxReplicas)) }}{{ $wrong = append $wrong (printf "%s.autoscaling: minReplicas %d is more than maxReplicas %d" $c (int $x.autoscaling.minReplicas) (int $x.autoscaling.maxReplicas)) }}{{ end -}}
{{- if and $x.autoscaling.enabled (not $x.autoscaling.targetCPUUtilizationPercentage) (not $x.autoscaling.targetMemoryUtilizationPercentage) (not $x.autoscaling.metrics) }}{{ $wrong = append $wrong (printf "%s.autoscaling: nothing to scale on: set targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" $c) }}{{ end -}}
{{- if $x.scaledObject.enabled -}}
{{- if eq $c "receiver" -}}
{{- if not $x.scaledObject.triggers }}{{ $wrong = append $wrong "receiver.scaledObject.triggers: expected at least one; the receiver has no lag to scale on" }}{{ end -}}
{{- if gt (int $x.scaledObject.minReplicaCount) (int $x.scaledObject.maxReplicaCount) }}{{ $wrong = append $wrong "receiver.scaledObject: minReplicaCount is more than maxReplicaCount" }}{{ end -}}
{{- if lt (int $x.scaledObject.minReplicaCount) 1 }}{{ $wrong = append $wrong "receiver.scaledObject.minReplicaCount: expected 1 at least: without a receiver webhooks are lost" }}{{ end -}}
{{- else -}}
{{- if gt (int $x.scaledObject.minReplicaCount) (include "catchment.maxReplicas" (dict "root" $ "component" $c) | int) }}{{ $wrong = append $wrong (printf "%s.scaledObject: minReplicaCount %d is more than maxReplicaCount (config.kafka.partitions, unless it is set)" $c (int $x.scaledObject.minReplicaCount)) }}{{ end -}}
{{- range $b := $kafka.brokers }}{{ if contains "${" $b }}{{ $wrong = append $wrong (printf "config.kafka.brokers: KEDA does not know the pods' environment: expected host:port for %s.scaledObject, found %s" $c $b) }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $x.podDisruptionBudget.maxUnavailable)) (not (kindIs "invalid" $x.podDisruptionBudget.minAvailable)) }}{{ $wrong = append $wrong (printf "%s.podDisruptionBudget: maxUnavailable and minAvailable exclude one another: set one of them to null" $c) }}{{ end -}}
{{- if and $x.podDisruptionBudget.enabled (kindIs "invalid" $x.podDisruptionBudget.maxUnavailable) (kindIs "invalid" $x.podDisruptionBudget.minAvailable) }}{{ $wrong = append $wrong (printf "%s.podDisruptionBudget: set maxUnavailable or minAvailable" $c) }}{{ end -}}
{{- end -}}
{{- if and $v.archiver.scaledObject.enabled (lt (int $v.archiver.scaledObject.minReplicaCount) 1) }}{{ $wrong = append $wrong "archiver.scaledObject.minReplicaCount: expected 1 at least: what is not archived before Kafka removes it is a gap" }}{{ end -}}
{{- if and $v.metrics.podMonitor.enabled $v.metrics.serviceMonitor.enabled }}{{ $wrong = append $wrong "metrics: podMonitor.enabled and serviceMonitor.enabled exclude one another, for everything would be counted twice" }}{{ end -}}
{{- if and (or $v.ingress.enabled $v.httpRoute.enabled) (not $v.receiver.enabled) }}{{ $wrong = append $wrong "receiver.enabled: an Ingress or HTTPRoute leads to the receiver, which is off" }}{{ end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}{{ $wrong = append $wrong "ingress.hosts: expected at least one host name" }}{{ end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}{{ $wrong = append $wrong "httpRoute.parentRefs: expected the Gateway that the route belongs to" }}{{ end -}}
{{- /* the sources' secrets: a file must be mounted */ -}}
{{- range $name, $s := default (dict) $config.sources -}}
{{- range $i, $secret := default (list) $s.secrets -}}
{{- $at := printf "config.sources.%s.secrets[%d]" $name $i -}}
{{- $file := "" -}}
{{- $literal := "" -}}
{{- if kindIs "map" $secret -}}
{{- $file = default "" $secret.file -}}
{{- $literal = toString (default "" $secret.value) -}}
{{- else -}}
{{- $literal = toString $secret -}}
{{- end -}}
{{- if hasPrefix "file:" $literal }}{{ $file = trimPrefix "file:" $literal }}{{ $literal = "" }}{{ end -}}
{{- if hasPrefix "sources/" $file -}}
{{- $parts := splitList "/" $file -}}
{{- $given := default (dict) (get $v.secrets.sources (index $parts 1)) -}}
{{- if or (ne (len $parts) 3) (not (has (last $parts) (default (list) $given.keys))) }}{{ $wrong = append $wrong (printf "%s: there is no file %s: expected secrets.sources.%s with the key %s" $at $file (index $parts 1) (last $parts)) }}{{ end -}}
{{- end -}}
{{- if and $literal (not (contains "${" $literal)) (not $v.secrets.allowInConfig) }}{{ $wrong = append $wrong (printf "%s: the secret itself would stand in a ConfigMap: put it into a Secret and name that under secrets.sources.%s, or write ${VARIABLE} and give it by receiver.extraEnvFrom (or secrets.allowInConfig: true, for tests and public keys)" $at $name) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $v.secrets.allowInConfig -}}
{{- $sasl := default (dict) $kafka.sasl -}}
{{- $archive := default (dict) $config.archive -}}
{{- range $path, $text := dict
  "kafka.sasl.password" $sasl.password
  "kafka.sasl.oauth.client_secret" (default (dict) $sasl.oauth).client_secret
  "archive.checkpoint_key" $archive.checkpoint_key
  "archive.encryption.master_key" (default (dict) $archive.encryption).master_key -}}
{{- if and $text (not (hasPrefix "file:" $text)) (not (contains "${" $text)) }}{{ $wrong = append $wrong (printf "config.%s: the secret itself would stand in a ConfigMap: name a Secret under secrets, or write ${VARIABLE}" $path) }}{{ end -}}
{{- end -}}
{{- range $path, $text := dict
  "postgres.url" $pgURL
  "postgres.migrate_url" (default (dict) $config.postgres).migrate_url
  "ingress.dedup.url" (default (dict) $config.ingress.dedup).url -}}
{{- if and $text (regexMatch "^[a-z]+://[^/@]*:[^/@]+@" (toString $text)) (not (regexMatch "^[a-z]+://[^/@]*:\\$\\{[^}]*\\}@" (toString $text))) }}{{ $wrong = append $wrong (printf "config.%s: the password in it would stand in a ConfigMap: name a Secret under secrets, or write ${VARIABLE} in its place" $path) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with $v.tests.source }}{{ if not (hasKey (default (dict) $config.sources) .) }}{{ $wrong = append $wrong (printf "tests.source: there is no source %q in config.sources" .) }}{{ end }}{{ end -}}
{{- if $wrong }}{{ fail (printf "\n\nThe values do not fit together:\n  - %s\n" (join "\n  - " $wrong)) }}{{ end -}}
{{- end -}}
