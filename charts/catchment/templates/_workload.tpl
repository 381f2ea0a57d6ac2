{{- /* A service's Deployment: root, component. */ -}}
{{- define "catchment.deployment" -}}
{{- $root := .root -}}
{{- $c := .component -}}
{{- $x := index $root.Values $c -}}
{{- $needs := index (dict "receiver" (list "kafka" "sources" "ingress") "processor" (list "kafka" "postgres") "archiver" (list "kafka" "archive")) $c -}}
{{- $topics := eq (include "catchment.topicsIn" $root) $c -}}
{{- $migrate := and (eq $c "processor") (eq $root.Values.migrations.mode "initContainer") -}}
{{- $ctx := dict "root" $root "component" $c "needs" $needs "user" $c "volume" "catchment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "catchment.metadata" $ctx | nindent 2 }}
spec:
  {{- if not (or $x.autoscaling.enabled $x.scaledObject.enabled) }}
  replicas: {{ int $x.replicaCount }}
  {{- end }}
  revisionHistoryLimit: {{ int $x.revisionHistoryLimit }}
  minReadySeconds: {{ int $x.minReadySeconds }}
  selector:
    matchLabels:
      {{- include "catchment.selector" $ctx | nindent 6 }}
  strategy:
    {{- ternary (dict "type" "Recreate") $x.strategy (eq $x.strategy.type "Recreate") | toYaml | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "catchment.labels" (dict "root" $root "component" $c "more" $x.podLabels) | nindent 8 }}
      annotations:
        {{- mergeOverwrite (dict) (deepCopy $root.Values.commonAnnotations) (deepCopy $x.podAnnotations) (dict "checksum/config" (include "catchment.config" $root | sha256sum) "kubectl.kubernetes.io/default-container" $c) | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "catchment.serviceAccount" $ctx }}
      automountServiceAccountToken: false
      enableServiceLinks: false # variables such as CATCHMENT_… would be settings
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $x.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- with $x.runtimeClassName }}
      runtimeClassName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: {{ include "catchment.grace" $ctx }}
      securityContext:
        {{- include "catchment.restrictedPod" $root | nindent 8 }}
      {{- if or $topics $migrate $x.extraInitContainers }}
      initContainers:
        {{- if $topics }}
        - {{- include "catchment.toolContainer" (dict "root" $root "name" "topics" "args" (list "topics" "ensure") "needs" (list "kafka") "user" "setup" "volume" "topics" "extraEnv" $x.extraEnv "extraEnvFrom" $x.extraEnvFrom "extraVolumeMounts" $x.extraVolumeMounts) | nindent 10 }}
        {{- end }}
        {{- if $migrate }}
        - {{- include "catchment.toolContainer" (dict "root" $root "name" "migrate" "args" (list "migrate") "needs" (list "migrate") "user" "" "volume" "migrate" "extraEnv" $x.extraEnv "extraEnvFrom" $x.extraEnvFrom "extraVolumeMounts" $x.extraVolumeMounts) | nindent 10 }}
        {{- end }}
        {{- with $x.extraInitContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ $c }}
          image: {{ include "catchment.image" (dict "root" $root "image" $x.image) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          env:
            {{- include "catchment.env" $ctx | nindent 12 }}
            {{- with concat $root.Values.extraEnv $x.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with concat $root.Values.extraEnvFrom $x.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- if eq $c "receiver" }}
            - {name: http, containerPort: {{ include "catchment.httpPort" $root }}, protocol: TCP}
            {{- end }}
            - {name: ops, containerPort: {{ include "catchment.opsPort" $ctx }}, protocol: TCP}
          startupProbe:
            httpGet: {path: /livez, port: ops}
            {{- toYaml $x.startupProbe | nindent 12 }}
          livenessProbe:
            httpGet: {path: /livez, port: ops}
            {{- toYaml $x.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet: {path: /readyz, port: ops}
            {{- toYaml $x.readinessProbe | nindent 12 }}
          {{- if gt (int $x.preStopSleepSeconds) 0 }}
          lifecycle:
            preStop:
              sleep: {seconds: {{ int $x.preStopSleepSeconds }}}
          {{- end }}
          resources:
            {{- toYaml $x.resources | nindent 12 }}
          securityContext:
            {{- include "catchment.restricted" $root | nindent 12 }}
          volumeMounts:
            - {name: catchment, mountPath: /etc/catchment, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- with $x.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with $x.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "catchment.volume" $ctx | nindent 8 }}
        {{- if $topics }}
        {{- include "catchment.volume" (dict "root" $root "needs" (list "kafka") "user" "setup" "volume" "topics") | nindent 8 }}
        {{- end }}
        {{- if $migrate }}
        {{- include "catchment.volume" (dict "root" $root "needs" (list "migrate") "user" "" "volume" "migrate") | nindent 8 }}
        {{- end }}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- with $x.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- include "catchment.placement" $ctx | nindent 6 }}
{{- end -}}

{{- /* Where pods go: root, component. */ -}}
{{- define "catchment.placement" -}}
{{- $x := index .root.Values .component -}}
{{- $selector := dict "matchLabels" (include "catchment.selector" . | fromYaml) -}}
{{- $constraints := list -}}
{{- $affinity := dict -}}
{{- if ne $x.spread "off" -}}
{{- $when := ternary "DoNotSchedule" "ScheduleAnyway" (eq $x.spread "hard") -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" $key "whenUnsatisfiable" $when "labelSelector" $selector "matchLabelKeys" (list "pod-template-hash")) -}}
{{- end -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $selector -}}
{{- if eq $x.spread "hard" -}}
{{- /* of one template: a rollout's new pods may stand beside the old ones */ -}}
{{- $_ := set $term "matchLabelKeys" (list "pod-template-hash") -}}
{{- $affinity = dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- else -}}
{{- $affinity = dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term))) -}}
{{- end -}}
{{- end -}}
{{- if $x.topologySpreadConstraints -}}
{{- $constraints = list -}}
{{- range $t := $x.topologySpreadConstraints -}}
{{- $constraints = append $constraints (merge (deepCopy $t) (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $x.affinity }}{{ $_ := set $affinity $key $value }}{{ end -}}
{{- with $constraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $x.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $x.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* A Job before install and upgrade: root, name, args, needs, user. It brings its own ConfigMap. */ -}}
{{- define "catchment.hookJob" -}}
{{- $ctx := dict "root" .root "component" .name "name" (include "catchment.object" (dict "root" .root "component" .name)) -}}
{{- $configMap := printf "%s-config" $ctx.name -}}
{{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "catchment.metadata" (dict "root" .root "component" .name "name" $configMap "annotations" (merge (dict "helm.sh/hook-weight" "-10") $hook)) | nindent 2 }}
data:
  catchment.yaml: |
    {{- include "catchment.config" .root | nindent 4 }}
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "catchment.metadata" (merge (dict "annotations" (merge (dict "helm.sh/hook-weight" .weight) $hook)) $ctx) | nindent 2 }}
spec:
  backoffLimit: 5
  activeDeadlineSeconds: 600
  template:
    metadata:
      labels:
        {{- include "catchment.labels" $ctx | nindent 8 }}
    spec:
      {{- include "catchment.toolPod" (merge (dict "configMap" $configMap) .) | nindent 6 }}
{{- end -}}

{{- /* The pod of a Job or test: root, name, args, needs, user, configMap. */ -}}
{{- define "catchment.toolPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "catchment.restrictedPod" .root | nindent 2 }}
containers:
  - {{- include "catchment.toolContainer" (merge (dict "volume" "catchment") .) | nindent 4 }}
volumes:
  {{- include "catchment.volume" (merge (dict "volume" "catchment") .) | nindent 2 }}
  {{- with .extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
