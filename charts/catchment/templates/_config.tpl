{{- /*
catchment.yaml. Helm reads values as YAML 1.1, where the bare words on and off are true and false, so `on:` of an operation
arrives as the key "true", and `store: off` as false: here they become again what was written.
*/ -}}
{{- define "catchment.config" -}}
{{- $c := deepCopy .Values.config -}}
{{- range $op := default (list) $c.operations -}}
{{- if hasKey $op "true" }}{{ $_ := set $op "on" (get $op "true") }}{{ $_ := unset $op "true" }}{{ end -}}
{{- end -}}
{{- range $path := list "kafka.results_topic" "postgres.prepared" "telemetry.traces" -}}
{{- $p := splitList "." $path -}}
{{- $section := get $c (first $p) -}}
{{- if and $section (kindIs "bool" (get $section (last $p))) }}{{ $_ := set $section (last $p) (ternary "on" "off" (get $section (last $p))) }}{{ end -}}
{{- end -}}
{{- with (default (dict) $c.ingress).dedup }}{{ if kindIs "bool" .store }}{{ $_ := set . "store" (ternary "on" "off" .store) }}{{ end }}{{ end -}}
{{- range $name, $s := default (dict) $c.sources -}}
{{- range $key, $v := default (dict) $s.options -}}
{{- if kindIs "bool" $v }}{{ if eq $key "tolerance" }}{{ $_ := set $s.options $key (ternary "on" "off" $v) }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{- /* The Secret with a program's Kafka user: root, user (receiver, processor, archiver, setup). */ -}}
{{- define "catchment.kafkaSecret" -}}
{{- $k := .root.Values.secrets.kafka -}}
{{- default $k.existingSecret (index $k.existingSecrets .user) -}}
{{- end -}}

{{- /*
What a program reads: root, needs (a list of kafka, sources, ingress, postgres, migrate, archive), user. First its
environment, then (catchment.files) the sources of the projected volume that is /etc/catchment.
*/ -}}
{{- define "catchment.env" -}}
{{- $s := .root.Values.secrets -}}
{{- $config := include "catchment.config" .root | fromYaml -}}
{{- $dir := "/etc/catchment" -}}
- name: CATCHMENT_CONFIG
  value: {{ $dir }}/catchment.yaml
{{- if has "kafka" .needs }}
{{- if $s.kafka.caSecret }}
- name: CATCHMENT_KAFKA__TLS__CA_FILE
  value: {{ $dir }}/kafka/ca.crt
{{- end }}
{{- $secret := include "catchment.kafkaSecret" . }}
{{- if $secret }}
{{- $mechanism := (default (dict) (default (dict) $config.kafka).sasl).mechanism }}
{{- if not $mechanism }}
- name: CATCHMENT_KAFKA__TLS__CERT_FILE
  value: {{ $dir }}/kafka/user.crt
- name: CATCHMENT_KAFKA__TLS__KEY_FILE
  value: {{ $dir }}/kafka/user.key
{{- else if eq $mechanism "oauthbearer" }}
- name: CATCHMENT_KAFKA__SASL__OAUTH__CLIENT_ID_FILE
  value: {{ $dir }}/kafka/username
- name: CATCHMENT_KAFKA__SASL__OAUTH__CLIENT_SECRET_FILE
  value: {{ $dir }}/kafka/password
{{- else if ne $mechanism "aws-msk-iam" }}
{{- if $s.kafka.usernameKey }}
- name: CATCHMENT_KAFKA__SASL__USERNAME_FILE
  value: {{ $dir }}/kafka/username
{{- else }}
- name: CATCHMENT_KAFKA__SASL__USERNAME
  value: {{ $secret | quote }}
{{- end }}
- name: CATCHMENT_KAFKA__SASL__PASSWORD_FILE
  value: {{ $dir }}/kafka/password
{{- end }}
{{- end }}
{{- end }}
{{- if and (has "ingress" .needs) .root.Values.receiver.tls.existingSecret }}
- name: CATCHMENT_INGRESS__TLS__CERT_FILE
  value: {{ $dir }}/tls/tls.crt
- name: CATCHMENT_INGRESS__TLS__KEY_FILE
  value: {{ $dir }}/tls/tls.key
{{- if .root.Values.receiver.tls.clientCASecret }}
- name: CATCHMENT_INGRESS__TLS__CLIENT_CA_FILE
  value: {{ $dir }}/tls/client-ca.crt
{{- end }}
{{- end }}
{{- if and (has "ingress" .needs) $s.dedup.existingSecret }}
- name: CATCHMENT_INGRESS__DEDUP__URL_FILE
  value: {{ $dir }}/dedup/url
{{- end }}
{{- if or (has "postgres" .needs) (has "migrate" .needs) }}
{{- if and $s.postgres.existingSecret $s.postgres.urlKey }}
- name: CATCHMENT_POSTGRES__URL_FILE
  value: {{ $dir }}/postgres/url
{{- end }}
{{- if and (has "migrate" .needs) $s.postgres.migrate.existingSecret $s.postgres.migrate.passwordKey }}
- name: CATCHMENT_POSTGRES__PASSWORD_FILE
  value: {{ $dir }}/postgres-migrate/password
{{- else if and $s.postgres.existingSecret $s.postgres.passwordKey }}
- name: CATCHMENT_POSTGRES__PASSWORD_FILE
  value: {{ $dir }}/postgres/password
{{- end }}
{{- end }}
{{- if and (has "migrate" .needs) $s.postgres.migrate.existingSecret $s.postgres.migrate.urlKey }}
- name: CATCHMENT_POSTGRES__MIGRATE_URL_FILE
  value: {{ $dir }}/postgres-migrate/url
{{- end }}
{{- if has "archive" .needs }}
{{- if $s.archive.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $s.archive.existingSecret | quote }}, key: {{ $s.archive.accessKeyIdKey | quote }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $s.archive.existingSecret | quote }}, key: {{ $s.archive.secretAccessKeyKey | quote }}}}
{{- end }}
{{- if $s.archive.checkpointKeySecret }}
- name: CATCHMENT_ARCHIVE__CHECKPOINT_KEY_FILE
  value: {{ $dir }}/archive/checkpoint.key
{{- end }}
{{- if $s.archive.masterKeySecret }}
- name: CATCHMENT_ARCHIVE__ENCRYPTION__MASTER_KEY_FILE
  value: {{ $dir }}/archive/master.key
{{- end }}
{{- end }}
{{- end -}}

{{- /* One file of the projected volume: name, key, path. */ -}}
{{- define "catchment.file" }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: {{ .path | quote }}}]}
{{- end -}}

{{- /* Where the ConfigMap is, for objects that exist before the release's own: configMap. */ -}}
{{- define "catchment.files" -}}
{{- $s := .root.Values.secrets -}}
{{- $config := include "catchment.config" .root | fromYaml -}}
- configMap: {name: {{ .configMap | default (include "catchment.fullname" .root) }}, items: [{key: catchment.yaml, path: catchment.yaml}]}
{{- if has "kafka" .needs }}
{{- if $s.kafka.caSecret }}
{{- include "catchment.file" (dict "name" $s.kafka.caSecret "key" $s.kafka.caKey "path" "kafka/ca.crt") }}
{{- end }}
{{- $secret := include "catchment.kafkaSecret" . }}
{{- if $secret }}
{{- $mechanism := (default (dict) (default (dict) $config.kafka).sasl).mechanism }}
{{- if not $mechanism }}
{{- include "catchment.file" (dict "name" $secret "key" $s.kafka.certKey "path" "kafka/user.crt") }}
{{- include "catchment.file" (dict "name" $secret "key" $s.kafka.keyKey "path" "kafka/user.key") }}
{{- else if ne $mechanism "aws-msk-iam" }}
{{- if $s.kafka.usernameKey }}
{{- include "catchment.file" (dict "name" $secret "key" $s.kafka.usernameKey "path" "kafka/username") }}
{{- end }}
{{- include "catchment.file" (dict "name" $secret "key" $s.kafka.passwordKey "path" "kafka/password") }}
{{- end }}
{{- end }}
{{- end }}
{{- if has "sources" .needs }}
{{- range $name, $src := $s.sources }}
{{- range $key := $src.keys }}
{{- include "catchment.file" (dict "name" $src.existingSecret "key" $key "path" (printf "sources/%s/%s" $name $key)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (has "ingress" .needs) .root.Values.receiver.tls.existingSecret }}
{{- include "catchment.file" (dict "name" .root.Values.receiver.tls.existingSecret "key" "tls.crt" "path" "tls/tls.crt") }}
{{- include "catchment.file" (dict "name" .root.Values.receiver.tls.existingSecret "key" "tls.key" "path" "tls/tls.key") }}
{{- with .root.Values.receiver.tls.clientCASecret }}
{{- include "catchment.file" (dict "name" . "key" "ca.crt" "path" "tls/client-ca.crt") }}
{{- end }}
{{- end }}
{{- if and (has "ingress" .needs) $s.dedup.existingSecret }}
{{- include "catchment.file" (dict "name" $s.dedup.existingSecret "key" $s.dedup.urlKey "path" "dedup/url") }}
{{- end }}
{{- if or (has "postgres" .needs) (has "migrate" .needs) }}
{{- if and $s.postgres.existingSecret $s.postgres.urlKey }}
{{- include "catchment.file" (dict "name" $s.postgres.existingSecret "key" $s.postgres.urlKey "path" "postgres/url") }}
{{- end }}
{{- if and $s.postgres.existingSecret $s.postgres.passwordKey }}
{{- include "catchment.file" (dict "name" $s.postgres.existingSecret "key" $s.postgres.passwordKey "path" "postgres/password") }}
{{- end }}
{{- if $s.postgres.caSecret }}
{{- include "catchment.file" (dict "name" $s.postgres.caSecret "key" $s.postgres.caKey "path" "postgres/ca.crt") }}
{{- end }}
{{- end }}
{{- if and (has "migrate" .needs) $s.postgres.migrate.existingSecret }}
{{- if $s.postgres.migrate.urlKey }}
{{- include "catchment.file" (dict "name" $s.postgres.migrate.existingSecret "key" $s.postgres.migrate.urlKey "path" "postgres-migrate/url") }}
{{- end }}
{{- if $s.postgres.migrate.passwordKey }}
{{- include "catchment.file" (dict "name" $s.postgres.migrate.existingSecret "key" $s.postgres.migrate.passwordKey "path" "postgres-migrate/password") }}
{{- end }}
{{- end }}
{{- if has "archive" .needs }}
{{- with $s.archive.checkpointKeySecret }}
{{- include "catchment.file" (dict "name" . "key" $s.archive.checkpointKeyKey "path" "archive/checkpoint.key") }}
{{- end }}
{{- with $s.archive.masterKeySecret }}
{{- include "catchment.file" (dict "name" . "key" $s.archive.masterKeyKey "path" "archive/master.key") }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A volume with these files: root, needs, user, volume, configMap. */ -}}
{{- define "catchment.volume" -}}
- name: {{ .volume }}
  projected:
    defaultMode: 0440
    sources:
      {{- include "catchment.files" . | nindent 6 }}
{{- end -}}

{{- /*
A container of the tool: root, name, args (a list), needs, user, volume. Every container that holds a program of
Catchment has its files at the same place, and a folder for temporary ones.
*/ -}}
{{- define "catchment.toolContainer" -}}
name: {{ .name }}
image: {{ include "catchment.image" (dict "root" .root "image" .root.Values.tool.image) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
env:
  {{- include "catchment.env" . | nindent 2 }}
  {{- with concat .root.Values.extraEnv (default (list) .extraEnv) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with concat .root.Values.extraEnvFrom (default (list) .extraEnvFrom) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .root.Values.tool.resources | nindent 2 }}
securityContext:
  {{- include "catchment.restricted" .root | nindent 2 }}
volumeMounts:
  - {name: {{ .volume }}, mountPath: /etc/catchment, readOnly: true}
  {{- with .extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
