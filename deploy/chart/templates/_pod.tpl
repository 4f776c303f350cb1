{{/*
A pod's metadata and spec: kbak.pod (dict "root" $ "part" "backup" "args" (list …) "resources" … "scratch" … "api" true).
It meets Pod Security's level `restricted`.
*/}}
{{- define "kbak.podMetadata" -}}
labels:
  {{- include "kbak.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .part }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.pods.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kbak.podSpec" -}}
{{- $v := .root.Values -}}
{{- $at := include "kbak.folders" .root | fromYaml -}}
restartPolicy: Never
{{- with .deadline }}
# Here and not for the Job alone, which removes its pods at its deadline, and their logs with them.
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
serviceAccountName: {{ include "kbak.account" (list .root .part) | quote }}
automountServiceAccountToken: {{ .api }}
enableServiceLinks: false
# SIGTERM ends a run within seconds; what was stored is used by the next one.
terminationGracePeriodSeconds: 60
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $v.pods.runAsUser }}
  runAsGroup: {{ $v.pods.runAsUser }}
  # Makes mounted Secrets readable by this group.
  fsGroup: {{ $v.pods.runAsUser }}
  seccompProfile: {type: RuntimeDefault}
{{- with $v.pods.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $v.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.pods.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.pods.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: kbak
    image: {{ include "kbak.image" .root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    env:
      - {name: TMPDIR, value: /scratch}
      - {name: HOME, value: /scratch}
      {{- if and $v.events.enabled (ne .part "verify") }}
      # A backup tells of its end in an Event on this CronJob, and a check tries the rights to do so.
      - {name: KBAK_CRONJOB, value: {{ include "kbak.fullname" .root }}-backup}
      {{- end }}
      {{- with $v.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    # kbak writes it; the end of the log stands in where kbak could not.
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: scratch, mountPath: /scratch}
      - {name: plan, mountPath: {{ $at.plan }}, readOnly: true}
      {{- if ne .part "verify" }}
      - {name: writer, mountPath: {{ $at.writer }}, readOnly: true}
      {{- range $number, $database := $v.databases }}
      - {name: database-{{ $number }}, mountPath: /etc/kbak/databases/{{ $database.name }}/{{ $database.existingSecret }}, readOnly: true}
      {{- end }}
      {{- end }}
      {{- range $number, $receiver := $v.notify }}
      {{- range $receiver }}
      {{- if .existingSecret }}
      - {name: notify-{{ $number }}, mountPath: /etc/kbak/notify/{{ $number }}/{{ .existingSecret }}, readOnly: true}
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if or $v.signers $v.existingSignersConfigMap }}
      - {name: signers, mountPath: {{ $at.signers }}, readOnly: true}
      {{- end }}
      {{- if $v.store.existingSecret }}
      - {name: store, mountPath: {{ $at.store }}, readOnly: true}
      {{- end }}
      {{- if $v.store.existingCASecret }}
      - {name: store-ca, mountPath: {{ $at.storeCA }}, readOnly: true}
      {{- end }}
      {{- with $v.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: scratch
    emptyDir: {medium: Memory, sizeLimit: {{ .scratch }}}
  - name: plan
    configMap: {name: {{ include "kbak.fullname" .root }}-plan}
  {{- if ne .part "verify" }}
  # 288 is 0440 (YAML's versions disagree on octal), for the group alone: kbak warns of secrets that everybody may read. Optional, because a
  # pod that waits for a missing Secret says nothing until its deadline: kbak names it at once.
  - name: writer
    secret: {secretName: {{ $v.writer.existingSecret | quote }}, defaultMode: 288, optional: true}
  {{- range $number, $database := $v.databases }}
  - name: database-{{ $number }}
    secret: {secretName: {{ $database.existingSecret | quote }}, defaultMode: 288, optional: true}
  {{- end }}
  {{- end }}
  {{- range $number, $receiver := $v.notify }}
  {{- range $receiver }}
  {{- if .existingSecret }}
  - name: notify-{{ $number }}
    secret: {secretName: {{ .existingSecret | quote }}, defaultMode: 288, optional: true}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- if or $v.signers $v.existingSignersConfigMap }}
  - name: signers
    configMap: {name: {{ include "kbak.signersConfigMap" .root | quote }}, optional: true}
  {{- end }}
  {{- if $v.store.existingSecret }}
  - name: store
    secret: {secretName: {{ $v.store.existingSecret | quote }}, defaultMode: 288, optional: true}
  {{- end }}
  {{- if $v.store.existingCASecret }}
  - name: store-ca
    secret: {secretName: {{ $v.store.existingCASecret | quote }}, defaultMode: 288, optional: true}
  {{- end }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
A CronJob: kbak.cronJob (dict "root" $ "part" "backup" "args" (list …) "api" true).
*/}}
{{- define "kbak.cronJob" -}}
{{- $part := index .root.Values .part -}}
{{- $pod := merge (dict "resources" $part.resources "scratch" $part.scratch "deadline" $part.activeDeadlineSeconds) . -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "kbak.fullname" .root }}-{{ .part }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "kbak.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
spec:
  schedule: {{ include "kbak.schedule" (list .root $part.schedule .part) | quote }}
  timeZone: {{ $part.timeZone }}
  suspend: {{ $part.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {{ int64 $part.startingDeadlineSeconds }}
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 5
  jobTemplate:
    metadata:
      labels:
        {{- include "kbak.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .part }}
    spec:
      backoffLimit: {{ $part.backoffLimit }}
      # For a pod that never starts; each pod's own deadline comes first.
      activeDeadlineSeconds: {{ add (mul (int64 $part.activeDeadlineSeconds) (add (int64 $part.backoffLimit) 1)) 3600 }}
      # Never two writers: a new pod waits for the end of the old one.
      podReplacementPolicy: Failed
      podFailurePolicy:
        rules:
          # A drained node is nobody's fault, and no try.
          - action: Ignore
            onPodConditions: [{type: DisruptionTarget, status: "True"}]
          # 1 a bug, 2 configuration, 3 partial, 4 damaged: the next try would end the same way.
          # Left to be tried again: 5 unreachable, 6 interrupted, and a killed process.
          - action: FailJob
            onExitCodes: {containerName: kbak, operator: In, values: [1, 2, 3, 4]}
      template:
        metadata:
          {{- include "kbak.podMetadata" $pod | nindent 10 }}
        spec:
          {{- include "kbak.podSpec" $pod | nindent 10 }}
{{- end -}}
