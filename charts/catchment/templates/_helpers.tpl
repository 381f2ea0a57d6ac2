{{- /* Names: at most 40 characters, so that every suffix fits into 63. What is cut gets a digest: two long names stay two. */ -}}
{{- define "catchment.name" -}}
{{- include "catchment.cut" (default .Chart.Name .Values.nameOverride) -}}
{{- end -}}

{{- define "catchment.cut" -}}
{{- if gt (len .) 40 -}}
{{- printf "%s-%s" (. | trunc 33 | trimSuffix "-" | trimSuffix ".") (sha256sum . | trunc 6) -}}
{{- else -}}
{{- . | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "catchment.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- include "catchment.cut" .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- include "catchment.cut" (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) -}}
{{- end -}}
{{- end -}}

{{- /* Selectors never change: root, component. */ -}}
{{- define "catchment.selector" -}}
app.kubernetes.io/name: {{ include "catchment.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of every object: root, component (may be missing), more (a map). */ -}}
{{- define "catchment.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "catchment.name" .root)
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" (.root.Chart.AppVersion | toString)
  "app.kubernetes.io/part-of" "catchment"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- if .component }}{{ $_ := set $own "app.kubernetes.io/component" .component }}{{ end -}}
{{- mergeOverwrite (dict) (deepCopy .root.Values.commonLabels) (deepCopy (default (dict) .more)) $own | toYaml -}}
{{- end -}}

{{- /* metadata of an object: root, component, suffix of the name, labels, annotations. */ -}}
{{- define "catchment.metadata" -}}
{{- $annotations := mergeOverwrite (dict) (deepCopy .root.Values.commonAnnotations) (deepCopy (default (dict) .annotations)) -}}
name: {{ .name | default (include "catchment.object" .) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "catchment.labels" (dict "root" .root "component" .component "more" .labels) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Name of an object: root, component, suffix. */ -}}
{{- define "catchment.object" -}}
{{- join "-" (compact (list (include "catchment.fullname" .root) .component .suffix)) -}}
{{- end -}}

{{- define "catchment.serviceAccount" -}}
{{- $sa := (index .root.Values .component).serviceAccount -}}
{{- default (ternary (include "catchment.object" .) "default" $sa.create) $sa.name -}}
{{- end -}}

{{- /* An image: root, image. */ -}}
{{- define "catchment.image" -}}
{{- $g := .root.Values.image -}}
{{- $name := .image.repository -}}
{{- if $g.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" $g.registry) .image.repository }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default (.root.Chart.AppVersion | toString) (default $g.tag .image.tag)) -}}
{{- end -}}
{{- end -}}

{{- /* The enabled services, by spaces. */ -}}
{{- define "catchment.components" -}}
{{- $on := list -}}
{{- range $c := list "receiver" "processor" "archiver" }}{{ if (index $.Values $c).enabled }}{{ $on = append $on $c }}{{ end }}{{ end -}}
{{- join " " $on -}}
{{- end -}}

{{- /* The service whose pods make the topics: the first one. */ -}}
{{- define "catchment.topicsIn" -}}
{{- if eq .Values.topics.mode "initContainer" }}{{ first (splitList " " (include "catchment.components" .)) }}{{ end -}}
{{- end -}}

{{- /* What config calls a component: the receiver is its ingress. */ -}}
{{- define "catchment.section" -}}
{{- ternary "ingress" . (eq . "receiver") -}}
{{- end -}}

{{- /* Seconds, rounded up, of a duration such as 1m30s, 2d or 0: text, where (for the message). */ -}}
{{- define "catchment.seconds" -}}
{{- $units := dict "ns" 0.000000001 "us" 0.000001 "µs" 0.000001 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $text := toString .text -}}
{{- $sum := 0.0 -}}
{{- if ne $text "0" -}}
{{- if not (regexMatch "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$" $text) }}{{ fail (printf "%s: the chart must know how long this is, to give pods time to stop: expected a duration such as 10s or 1m30s, found %q" .where $text) }}{{ end -}}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h|d)" $text -1 -}}
{{- $sum = addf $sum (mulf (float64 (regexFind "[0-9]+(\\.[0-9]+)?" .)) (get $units (regexFind "[a-zµ]+" .))) -}}
{{- end -}}
{{- end -}}
{{- ceil $sum | int -}}
{{- end -}}

{{- /* Port of an address in config: address, where. */ -}}
{{- define "catchment.port" -}}
{{- $port := regexFind "[0-9]+$" (toString .address) -}}
{{- if or (not (regexMatch ":[0-9]+$" (toString .address))) (lt (int $port) 1) (gt (int $port) 65535) }}{{ fail (printf "%s: expected host:port with a port of 1 to 65535, found %q" .where (toString .address)) }}{{ end -}}
{{- $port -}}
{{- end -}}

{{- define "catchment.opsPort" -}}
{{- $s := include "catchment.section" .component -}}
{{- $config := include "catchment.config" .root | fromYaml -}}
{{- include "catchment.port" (dict "address" (default (dict) (index $config $s)).ops_listen "where" (printf "config.%s.ops_listen" $s)) -}}
{{- end -}}

{{- define "catchment.httpPort" -}}
{{- include "catchment.port" (dict "address" (include "catchment.config" . | fromYaml).ingress.listen "where" "config.ingress.listen") -}}
{{- end -}}

{{- define "catchment.https" -}}
{{- $c := include "catchment.config" . | fromYaml -}}
{{- if or .Values.receiver.tls.existingSecret $c.ingress.tls }}yes{{ end -}}
{{- end -}}

{{- /* Seconds that a service takes to stop. */ -}}
{{- define "catchment.drain" -}}
{{- $config := include "catchment.config" .root | fromYaml -}}
{{- $s := default (dict) (index $config (include "catchment.section" .component)) -}}
{{- $sum := 0 -}}
{{- if eq .component "receiver" -}}
{{- $sum = add (include "catchment.seconds" (dict "text" (default "0s" $s.drain_delay) "where" "config.ingress.drain_delay")) (include "catchment.seconds" (dict "text" (default "15s" $s.drain_timeout) "where" "config.ingress.drain_timeout")) -}}
{{- else if eq .component "processor" -}}
{{- /* to end the batch, and to leave the group */ -}}
{{- $sum = add 10 (include "catchment.seconds" (dict "text" (default "30s" $s.tx_timeout) "where" "config.processor.tx_timeout")) -}}
{{- else -}}
{{- $sum = add 10 (include "catchment.seconds" (dict "text" (default "30s" $s.drain_timeout) "where" "config.archiver.drain_timeout")) -}}
{{- end -}}
{{- add $sum (index .root.Values .component).preStopSleepSeconds -}}
{{- end -}}

{{- define "catchment.grace" -}}
{{- $drain := include "catchment.drain" . | int -}}
{{- $given := (index .root.Values .component).terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add $drain 5 -}}
{{- else if lt (int $given) $drain -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %d is less than the %d s that it takes to stop, as config and preStopSleepSeconds say: the kubelet would kill it while it drains" .component (int $given) $drain) -}}
{{- else -}}
{{- int $given -}}
{{- end -}}
{{- end -}}

{{- define "catchment.partitions" -}}
{{- $p := default 12 (include "catchment.config" . | fromYaml).kafka.partitions -}}
{{- if kindIs "string" $p }}{{ fail (printf "config.kafka.partitions: the chart must know the number to scale on it: expected a number, found %q; or set maxReplicaCount" $p) }}{{ end -}}
{{- int $p -}}
{{- end -}}

{{- /* Most pods of a ScaledObject on the lag. */ -}}
{{- define "catchment.maxReplicas" -}}
{{- $so := (index .root.Values .component).scaledObject -}}
{{- if kindIs "invalid" $so.maxReplicaCount }}{{ include "catchment.partitions" .root }}{{ else }}{{ int $so.maxReplicaCount }}{{ end -}}
{{- end -}}

{{- /* Ports of addresses, as entries of a NetworkPolicy. */ -}}
{{- define "catchment.policyPorts" -}}
{{- range . }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end -}}

{{- define "catchment.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "catchment.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}
