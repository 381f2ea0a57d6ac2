package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

// helmTemplate renders charts/catchment with values. Without helm the test is skipped, or fails where real parts are required.
func helmTemplate(t *testing.T, values string) []kubeObject {
	t.Helper()
	helm, err := exec.LookPath("helm")
	if err != nil {
		cache, _ := os.UserCacheDir()
		helm, err = exec.LookPath(filepath.Join(cache, "catchment", "bin", "helm"))
	}
	if err != nil {
		if os.Getenv("CATCHMENT_TEST_REAL") == "1" {
			t.Fatal("CATCHMENT_TEST_REAL=1, but there is no helm: scripts/tools.sh helm")
		}
		t.Skip("there is no helm")
	}
	cmd := exec.CommandContext(t.Context(), helm, "template", "ci", filepath.Join(root(t), "charts", "catchment"), "--namespace", "hooks", "--kube-version", "1.33.0", "-f", "-")
	cmd.Stdin = strings.NewReader(values)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", stderr.String(), values)
	var objects []kubeObject
	for dec := yaml.NewDecoder(bytes.NewReader(out)); ; {
		var o kubeObject
		if dec.Decode(&o) != nil {
			return objects
		}
		if o.Kind != "" {
			objects = append(objects, o)
		}
	}
}

// kubeObject is what the tests need of an object: a Deployment, a Pod, a Service or a ConfigMap.
type kubeObject struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Data map[string]string
	Spec struct {
		kubePod  `yaml:",inline"`
		Template struct{ Spec kubePod }
	}
}

type kubePod struct {
	TerminationGracePeriodSeconds int             `yaml:"terminationGracePeriodSeconds"`
	InitContainers                []kubeContainer `yaml:"initContainers"`
	Containers                    []kubeContainer
	Volumes                       []struct {
		Name      string
		Projected struct {
			Sources []struct {
				ConfigMap *kubeFiles `yaml:"configMap"`
				Secret    *kubeFiles
			}
		}
	}
}

type kubeFiles struct {
	Name  string
	Items []struct{ Key, Path string }
}

type kubeContainer struct {
	Name, Image string
	Args        []string
	Env         []kubeEnv
	EnvFrom     []struct {
		SecretRef struct{ Name string } `yaml:"secretRef"`
	} `yaml:"envFrom"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	ReadinessProbe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	} `yaml:"readinessProbe"`
}

type kubeEnv struct {
	Name, Value string
	ValueFrom   struct {
		SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
	} `yaml:"valueFrom"`
}

// kubelet runs containers as processes of this machine: their files, and no other environment than theirs.
type kubelet struct {
	t       *testing.T
	objects []kubeObject
	secrets map[string]map[string]string
	bin     map[string]string // image's name to program
	running map[string]*exec.Cmd
	ended   map[string]chan error
}

func (k *kubelet) object(kind, name string) kubeObject {
	k.t.Helper()
	i := slices.IndexFunc(k.objects, func(o kubeObject) bool { return o.Kind == kind && o.Metadata.Name == name })
	require.GreaterOrEqual(k.t, i, 0, "there is no %s/%s", kind, name)
	return k.objects[i]
}

func (k *kubelet) secret(name, key string) string {
	k.t.Helper()
	require.Contains(k.t, k.secrets[name], key, "Secret %s", name)
	return k.secrets[name][key]
}

// files writes what is mounted at /etc/catchment, and returns where.
func (k *kubelet) files(pod kubePod, c kubeContainer) string {
	k.t.Helper()
	dir, volume := k.t.TempDir(), ""
	for _, m := range c.VolumeMounts {
		if m.MountPath == "/etc/catchment" {
			volume = m.Name
		}
	}
	for _, v := range pod.Volumes {
		if v.Name != volume {
			continue
		}
		for _, s := range v.Projected.Sources {
			from, read := s.Secret, k.secret
			if s.ConfigMap != nil {
				from, read = s.ConfigMap, func(name, key string) string { return k.object("ConfigMap", name).Data[key] }
			}
			for _, item := range from.Items {
				path := filepath.Join(dir, item.Path)
				require.NoError(k.t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(k.t, os.WriteFile(path, []byte(read(from.Name, item.Key)), 0o400))
			}
		}
	}
	require.FileExists(k.t, filepath.Join(dir, "catchment.yaml"))
	return dir
}

func (k *kubelet) command(pod kubePod, c kubeContainer, args ...string) (*exec.Cmd, *bytes.Buffer) {
	k.t.Helper()
	dir := k.files(pod, c)
	image := c.Image[strings.LastIndex(c.Image, "/")+1:]
	program := k.bin[image[:strings.Index(image, ":")]]
	require.NotEmpty(k.t, program, c.Image)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = k.t.TempDir(), []string{"HOME=" + k.t.TempDir()}
	for _, e := range c.EnvFrom {
		for name, value := range k.secrets[e.SecretRef.Name] {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for _, e := range c.Env {
		value := strings.ReplaceAll(e.Value, "/etc/catchment", dir)
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			value = k.secret(ref.Name, ref.Key)
		}
		cmd.Env = append(cmd.Env, e.Name+"="+value)
	}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	return cmd, &log
}

// start runs a Deployment's init containers, one after the other, then its container until the probe says that it is ready.
func (k *kubelet) start(name string) {
	k.t.Helper()
	pod := k.object("Deployment", name).Spec.Template.Spec
	for _, c := range pod.InitContainers {
		cmd, log := k.command(pod, c, c.Args...)
		require.NoError(k.t, cmd.Run(), "%s: %s", c.Name, log)
	}
	c := pod.Containers[0]
	cmd, log := k.command(pod, c, c.Args...)
	require.NoError(k.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	k.running[name], k.ended[name] = cmd, ended
	k.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range ended { // it is closed when the process has ended; stop may have taken what was in it
		}
		if k.t.Failed() {
			k.t.Logf("%s: %s", name, log)
		}
	})
	probe := c.ReadinessProbe.HTTPGet
	require.Equal(k.t, "/readyz", probe.Path)
	port := 0
	for _, p := range c.Ports {
		if p.Name == probe.Port {
			port = p.ContainerPort
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	require.True(k.t, await(k.t, 2*time.Minute, func() bool {
		require.Empty(k.t, ended, "%s has ended", name)
		return run.Ask(k.t.Context(), address, false).Healthy
	}), "%s is not ready: %s", name, address)
}

// stop is how the kubelet stops a pod: SIGTERM, and the grace to end.
func (k *kubelet) stop(name string) {
	k.t.Helper()
	cmd := k.running[name]
	require.NoError(k.t, cmd.Process.Signal(syscall.SIGTERM))
	grace := time.Duration(k.object("Deployment", name).Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	require.Positive(k.t, grace)
	select {
	case err := <-k.ended[name]:
		require.NoError(k.t, err, name)
	case <-time.After(grace):
		require.Fail(k.t, "the kubelet would have killed it", name)
	}
}

const chartValues = `
config:
  kafka: {brokers: ["%[1]s"], topic: %[2]s, results_topic: %[2]s.results, partitions: 3}
  archive: {url: "%[3]s"}
  ingress: {listen: ":%[4]s", ops_listen: ":%[5]s", drain_delay: 100ms}
  processor: {ops_listen: ":%[6]s", group: %[2]s.processor}
  archiver: {ops_listen: ":%[7]s", group: %[2]s.archiver, segment_age: 1s}
  sources:
    stripe: {provider: stripe, secrets: [{id: current, file: sources/stripe/current}, {id: next, file: sources/stripe/next}]}
    partner: {provider: github, secrets: ["${PARTNER_SECRET}"]}
  operations:
    - name: order-status
      on: {source: stripe, types: [payment_intent.succeeded, payment_intent.payment_failed]}
      entity: body.data.object.metadata.order_id
      version: time
      sql: |
        INSERT INTO orders (id, status) VALUES (@entity, 'paid') ON CONFLICT (id) DO UPDATE SET status = excluded.status
receiver: {extraEnvFrom: [{secretRef: {name: partner}}]}
secrets:
  postgres: {existingSecret: orders-app, migrate: {existingSecret: orders-owner}}
  archive: {existingSecret: store, checkpointKeySecret: checkpoint}
  sources: {stripe: {existingSecret: stripe-webhook, keys: [current, next]}}
tests: {source: stripe, type: payment_intent.succeeded, wait: 2m}
`

// TestChart runs what the chart renders: init containers, services and the pod of `helm test`, on the real programs with
// no more than their pods have.
func TestChart(t *testing.T) {
	port := func() string { _, p, _ := net.SplitHostPort(proctest.FreeAddress(t)); return p }
	bucket, archiveURL, keys := s3test.New(t), "file://"+t.TempDir(), map[string]string{"access_key_id": "none", "secret_access_key": "none"}
	if bucket != nil {
		archiveURL, keys = bucket.URL, map[string]string{"access_key_id": bucket.AccessKey, "secret_access_key": bucket.SecretKey}
	}
	listen, database := port(), pgtest.New(t)
	topic := fmt.Sprintf("chart.%d.%d", os.Getpid(), time.Now().UnixMilli())
	cluster := kafkatest.New(t)
	key, _, err := note.GenerateKey(rand.Reader, "chart")
	require.NoError(t, err)
	k := &kubelet{
		t: t, running: map[string]*exec.Cmd{}, ended: map[string]chan error{},
		objects: helmTemplate(t, fmt.Sprintf(chartValues, strings.Join(cluster.Brokers, `", "`), topic, archiveURL, listen, port(), port(), port())),
		secrets: map[string]map[string]string{
			"orders-app": {"uri": database}, "orders-owner": {"uri": database}, "store": keys,
			"stripe-webhook": {"current": "whsec_current\n", "next": "whsec_next"}, "partner": {"PARTNER_SECRET": "partner"},
			"checkpoint": {"checkpoint.key": key},
		},
		bin: map[string]string{"catchment": proctest.Build(t, ".")},
	}
	for _, service := range []string{"ingress", "processor", "archiver"} {
		k.bin["catchment-"+service] = proctest.Build(t, "github.com/catchment-dev/catchment/"+service+"/cmd/"+service)
	}
	require.NoError(t, execAt(database, "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL)"))
	for _, s := range []string{"receiver", "processor", "archiver"} {
		k.start("ci-catchment-" + s)
	}
	service := k.object("Service", "ci-catchment-receiver")
	require.NotEmpty(t, service)
	test := k.object("Pod", "ci-catchment-test").Spec.kubePod
	args := slices.Clone(test.Containers[0].Args)
	url := slices.Index(args, "--url") + 1
	require.Equal(t, "http://ci-catchment-receiver.hooks.svc:80/webhooks/stripe", args[url])
	args[url] = "http://127.0.0.1:" + listen + "/webhooks/stripe"
	cmd, log := k.command(test, test.Containers[0], args...)
	require.NoError(t, cmd.Run(), "%s", log)
	for _, s := range []string{"receiver", "processor", "archiver"} {
		k.stop("ci-catchment-" + s)
	}
}

// TestChartConfig pastes configurations into values: what Helm reads as YAML 1.1 must come out as it was written.
func TestChartConfig(t *testing.T) {
	compose, err := os.ReadFile(filepath.Join(root(t), "docs", "deploy", "compose", "catchment.yaml"))
	require.NoError(t, err)
	for name, text := range map[string]string{
		"compose": string(compose),
		"traps": `
kafka: {brokers: [a:1], results_topic: off, retention: 30d}
postgres: {url: "postgres://h/d", prepared: on}
archive: {url: file:///archive}
telemetry: {traces: off}
ingress:
  dedup: {store: off, entries: 12345678}
  max_body: 25000000
  in_flight_bytes: 1073741824
sources:
  shop:
    provider: stripe
    secrets: [{id: "2026", value: "${A}$$", not_before: 2026-12-31T00:00:00Z}, {id: yes-1, value: "${B}", not_after: 2027-12-31T00:00:00Z}]
    options: {tolerance: off}
    event_id: '"no"'
operations:
  - name: a
    on: {source: shop, types: ["off", "yes", n*]}
    sql: |
      SELECT 1;

      -- kept: {{ .Values.a }} ${X}
    params: {a: '"y"', b: "1e3", c: "0644"}
`,
	} {
		t.Run(name, func(t *testing.T) {
			values := "secrets: {allowInConfig: true}\nnetworkPolicy: {enabled: true}\nconfig:\n  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n"
			objects := helmTemplate(t, values)
			k := &kubelet{t: t, objects: objects}
			var want, got any
			require.NoError(t, yaml.Unmarshal([]byte(text), &want))
			require.NoError(t, yaml.Unmarshal([]byte(k.object("ConfigMap", "ci-catchment").Data["catchment.yaml"]), &got))
			requireWithin(t, "", want, got)
		})
	}
}

// requireWithin wants all of one document to be in another, which may have more keys.
func requireWithin(t *testing.T, path string, want, got any) {
	t.Helper()
	if m, ok := want.(map[string]any); ok {
		in, ok := got.(map[string]any)
		require.True(t, ok, path)
		for key, value := range m {
			require.Contains(t, in, key, path)
			requireWithin(t, path+"."+key, value, in[key])
		}
		return
	}
	if l, ok := want.([]any); ok {
		in, ok := got.([]any)
		require.True(t, ok && len(in) == len(l), path)
		for i, value := range l {
			requireWithin(t, fmt.Sprintf("%s[%d]", path, i), value, in[i])
		}
		return
	}
	if at, ok := want.(time.Time); ok { // Helm's parser leaves it a text, and so does ours
		want = at.Format(time.RFC3339)
	}
	require.EqualValues(t, want, got, path)
}

// TestChartUsers holds the example for Strimzi against the rights that are tested.
func TestChartUsers(t *testing.T) {
	file, err := os.Open(filepath.Join(root(t), "docs", "deploy", "kubernetes", "strimzi.yaml"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	var got, want []string
	for dec := yaml.NewDecoder(file); ; {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				Authorization struct {
					ACLs []struct {
						Resource   struct{ Type, Name, PatternType string }
						Operations []string
					} `yaml:"acls"`
				}
			}
		}
		if dec.Decode(&o) != nil {
			break
		}
		for _, acl := range o.Spec.Authorization.ACLs {
			if o.Kind == "KafkaUser" {
				got = append(got, strings.Join([]string{o.Metadata.Name, acl.Resource.Type, acl.Resource.Name, strings.Join(acl.Operations, " ")}, ","))
			}
		}
	}
	text, err := os.ReadFile(accessFiles + "kafka-acls.csv")
	require.NoError(t, err)
	want = strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	require.Equal(t, want, got)
}
