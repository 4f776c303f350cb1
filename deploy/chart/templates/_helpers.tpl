{{- define "kbak.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kbak.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "kbak.labels" -}}
{{ include "kbak.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* kbak.account (list $ "backup") */}}
{{- define "kbak.account" -}}
{{- $root := index . 0 -}}
{{- /* check runs with the rights of the backup */ -}}
{{- $part := ternary "verify" "backup" (eq (index . 1) "verify") -}}
{{- $account := index $root.Values.serviceAccounts $part -}}
{{- default (printf "%s-%s" (include "kbak.fullname" $root) $part) $account.name -}}
{{- end -}}

{{- define "kbak.signersConfigMap" -}}
{{- default (printf "%s-signers" (include "kbak.fullname" .)) .Values.existingSignersConfigMap -}}
{{- end -}}

{{- define "kbak.image" -}}
{{- $postgres := false -}}
{{- range .Values.plan.spec.databases -}}{{- if eq .engine "postgresql" -}}{{- $postgres = true -}}{{- end -}}{{- end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default (printf "%s%s" .Chart.AppVersion (ternary "-postgres" "" $postgres)) .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* kbak.schedule (list $ "H 2 * * *" "backup"): H is a minute that only the release's name decides. */}}
{{- define "kbak.schedule" -}}
{{- $root := index . 0 -}}
{{- $minute := mod (adler32sum (printf "%s/%s/%s" $root.Release.Namespace $root.Release.Name (index . 2))) 60 -}}
{{- regexReplaceAll "^H " (index . 1) (printf "%d " $minute) -}}
{{- end -}}

{{/*
Folders of what is mounted. Each ends with the name of its Secret or ConfigMap, so that messages
about a file name the object.
*/}}
{{- define "kbak.folders" -}}
writer: /etc/kbak/writer/{{ .Values.writer.existingSecret }}
store: /etc/kbak/store/{{ .Values.store.existingSecret }}
storeCA: /etc/kbak/store-ca/{{ .Values.store.existingCASecret }}
signers: /etc/kbak/signers/{{ include "kbak.signersConfigMap" . }}
plan: /etc/kbak/plan/{{ include "kbak.fullname" . }}-plan
{{- end -}}

{{/*
kbak.refuseTwice (list "extraVolumes" (list "a" "b")): fails where a name occurs twice, which the schema cannot see.
*/}}
{{- define "kbak.refuseTwice" -}}
{{- $seen := dict -}}
{{- $field := index . 0 -}}
{{- range $number, $name := index . 1 -}}
{{- if hasKey $seen $name -}}
{{- fail (printf "%s[%d]: %s occurs twice" $field $number $name) -}}
{{- end -}}
{{- $_ := set $seen $name true -}}
{{- end -}}
{{- end -}}

{{- define "kbak.refuseDuplicates" -}}
{{- $lists := dict "extraEnv" "name" "extraVolumes" "name" "extraVolumeMounts" "mountPath" "databases" "name" -}}
{{- range $field, $key := $lists -}}
{{- $names := list -}}
{{- range index $.Values $field -}}{{- $names = append $names (index . $key) -}}{{- end -}}
{{- include "kbak.refuseTwice" (list $field $names) -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.plan.spec.databases -}}{{- $names = append $names .name -}}{{- end -}}
{{- include "kbak.refuseTwice" (list "plan.spec.databases" $names) -}}
{{- end -}}

{{/*
The label of pushed metrics that tells clusters apart: that of the first receiver which has one (kbak takes the one in
an address before another), clusterName, or a text of the release and its repository. The alerts and the dashboard select it.
*/}}
{{- define "kbak.cluster" -}}
{{- $found := "" -}}
{{- range concat (default list .Values.plan.spec.notify) .Values.notify -}}
{{- with .metrics -}}
{{- $in := regexFind "/cluster/[^/?]+" (default "" .url) | trimPrefix "/cluster/" -}}
{{- $found = default (default .cluster $in) $found -}}
{{- end -}}
{{- end -}}
{{- $repository := .Values.plan.spec.repository -}}
{{- $address := printf "%s %s" (default "" $repository.endpoint) $repository.url | sha256sum | trunc 8 -}}
{{- $default := printf "%s-%s-%s" .Release.Namespace (include "kbak.fullname" .) $address -}}
{{- coalesce $found .Values.clusterName $default -}}
{{- end -}}

{{/* The plan, with the paths of what is mounted. Values that the user gave win. */}}
{{- define "kbak.plan" -}}
{{- $at := include "kbak.folders" . | fromYaml -}}
{{- $spec := deepCopy .Values.plan.spec -}}
{{- $mounted := dict "writer" (dict "keyFile" (printf "%s/writer.key" $at.writer)) "repository" dict -}}
{{- if not (dig "writer" "epochFile" "" $spec) -}}
{{- $_ := set $mounted.writer "epochSecret" .Values.epoch.existingSecret -}}
{{- end -}}
{{- if or .Values.signers .Values.existingSignersConfigMap -}}
{{- $_ := set $mounted.writer "signersFile" (printf "%s/kbak.pub" $at.signers) -}}
{{- end -}}
{{- if .Values.store.existingSecret -}}
{{- $_ := set $mounted.repository "credentialsFile" (printf "%s/credentials" $at.store) -}}
{{- end -}}
{{- if .Values.store.existingCASecret -}}
{{- $_ := set $mounted.repository "caFile" (printf "%s/ca.crt" $at.storeCA) -}}
{{- end -}}
{{- $spec = mergeOverwrite $mounted $spec -}}
{{- $planned := list -}}
{{- range $spec.databases -}}{{- $planned = append $planned .name -}}{{- end -}}
{{- range .Values.databases -}}
{{- if not (has .name $planned) -}}
{{- fail (printf "databases: the plan has no database %s: plan.spec.databases declares it" .name) -}}
{{- end -}}
{{- end -}}
{{- range $database := $spec.databases -}}
{{- range $secret := $.Values.databases -}}
{{- if eq $secret.name $database.name -}}
{{- $folder := printf "/etc/kbak/databases/%s/%s" $secret.name $secret.existingSecret -}}
{{- if not $database.userFile | and (not $database.user) -}}
{{- $_ := set $database "userFile" (printf "%s/%s" $folder (default "username" $secret.usernameKey)) -}}
{{- end -}}
{{- if not $database.passwordFile -}}
{{- $_ := set $database "passwordFile" (printf "%s/%s" $folder (default "password" $secret.passwordKey)) -}}
{{- end -}}
{{- if and $secret.caKey (not $database.caFile) -}}
{{- $_ := set $database "caFile" (printf "%s/%s" $folder $secret.caKey) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* Receivers of notices: a Secret becomes the file that it is mounted as. */ -}}
{{- $receivers := default list $spec.notify -}}
{{- range $number, $receiver := .Values.notify -}}
{{- range $kind, $target := deepCopy $receiver -}}
{{- if $target.existingSecret -}}
{{- $_ := set $target "urlFile" (printf "/etc/kbak/notify/%d/%s/%s" $number $target.existingSecret (default "url" $target.key)) -}}
{{- end -}}
{{- $receivers = append $receivers (dict $kind (omit $target "existingSecret" "key")) -}}
{{- end -}}
{{- end -}}
{{- range $receivers -}}
{{- if .metrics -}}
{{- $_ := set .metrics "cluster" (default (include "kbak.cluster" $) .metrics.cluster) -}}
{{- end -}}
{{- end -}}
{{- if $receivers -}}
{{- $_ := set $spec "notify" $receivers -}}
{{- end -}}
{{- /* Snapshots and metrics name the time at which the next one is due: that of the alert. */ -}}
{{- if and .Values.alerts.enabled (not $spec.schedule) -}}
{{- $_ := set $spec "schedule" (dict "next" (printf "%ds" (int64 .Values.alerts.maxBackupAgeSeconds))) -}}
{{- end -}}
apiVersion: kbak.dev/v1
kind: BackupPlan
metadata:
  name: {{ .Values.plan.name | quote }}
spec:
  {{- toYaml $spec | nindent 2 }}
{{- end -}}
