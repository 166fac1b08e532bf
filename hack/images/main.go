// Command images builds container images without Docker, as archives that `ctr images import`,
// `docker load` and `kind load image-archive` take, and serves them. The same input gives the same bytes.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const usage = `usage: images KIND [flags]
       images index --tag NAME:TAG --out DIR ARCHIVE...
       images serve --address HOST:PORT [--cert FILE --key FILE] [--dir DIR]

  images etcd --version X.Y.Z                      the official etcd image's layout, from the cached build
  images etcd --version X.Y.Z --clients X.Y.Z      with the etcdctl and etcdutl of another build
  images failing-etcd --version X.Y.Z              an etcd that ends where its volume says so
  images operator --binary FILE --version X.Y.Z
  images busybox [--binary FILE]                   a static shell for tests (Debian's busybox-static)
  images pause --binary FILE                       what holds a pod's network namespace
  images bundle --dir DIR --tag NAME:TAG           an OLM bundle, labelled as its annotations ask
  images catalog --dir DIR --tag NAME:TAG          a file-based catalog, for OLM to extract
  images olm --binaries DIR                        Operator Lifecycle Manager
  images opm --binaries DIR                        opm with a shell: unpacks bundles, serves catalogs
  images scorecard --binaries DIR                  operator-sdk's scorecard tests

The archive's path is printed. It is written only if it is older than what goes into it.

  --out FILE       where the archive goes (default: images/ in the cache)
  --tag NAME:TAG   another name than the kind's usual one
  --arch ARCH      for machines of another kind than this one, such as arm64
  --push REGISTRY  also push it to the registry HOST:PORT, under the name's path there
  --binaries DIR   where the tool's binaries are; etcd's are in the cache

index joins archives of one image for several architectures into a folder in OCI's layout, which "crane push --index" takes.
serve runs a registry until it is killed and prints its address. It speaks TLS where it is given a certificate,
keeps its blobs in DIR, in memory without one, and its manifests in memory.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// options are the flags of one invocation.
type options struct {
	version, clients, binary, binaries, dir, tag, arch, out, push string
}

func run(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("name a kind of image")
	}
	switch args[0] {
	case "serve":
		return serve(args[1:])
	case "index":
		return index(args[1:])
	}
	var o options
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flags.StringVar(&o.version, "version", "", "")
	flags.StringVar(&o.clients, "clients", "", "")
	flags.StringVar(&o.binary, "binary", "", "")
	flags.StringVar(&o.binaries, "binaries", "", "")
	flags.StringVar(&o.dir, "dir", "", "")
	flags.StringVar(&o.tag, "tag", "", "")
	flags.StringVar(&o.arch, "arch", runtime.GOARCH, "")
	flags.StringVar(&o.push, "push", "", "")
	flags.StringVar(&o.out, "out", "", "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	recipe, err := recipeFor(args[0], o)
	if err != nil {
		return err
	}
	if o.tag != "" {
		recipe.tag = o.tag
	}
	recipe.arch = o.arch
	if o.out == "" {
		cache, err := cacheDir()
		if err != nil {
			return err
		}
		o.out = filepath.Join(cache, "images", strings.NewReplacer("/", "_", ":", "_").Replace(recipe.tag)+foreign(o.arch)+".tar")
	}
	if !recipe.isWritten(o.out) {
		if err := recipe.writeArchive(o.out); err != nil {
			return err
		}
	}
	if o.push != "" {
		if err := push(o.out, recipe.tag, o.push); err != nil {
			return fmt.Errorf("pushing %s to %s: %w", recipe.tag, o.push, err)
		}
	}
	fmt.Println(o.out)
	return nil
}

// recipeFor says what goes into an image of the given kind.
func recipeFor(kind string, o options) (recipe, error) {
	version := strings.TrimPrefix(o.version, "v")
	switch kind {
	case "etcd":
		return etcdImage(version, strings.TrimPrefix(o.clients, "v"), o.binaries)
	case "failing-etcd":
		return failingImage(version, o.binaries)
	case "operator":
		return operatorImage(version, o.binary)
	case "busybox":
		return busyboxImage(o.binary)
	case "pause":
		return pauseImage(o.binary)
	case "bundle":
		return bundleImage(o.dir, o.tag)
	case "catalog":
		return catalogImage(o.dir, o.tag)
	case "olm":
		return olmImage(o.binaries)
	case "opm":
		return opmImage(o.binaries)
	case "scorecard":
		return scorecardImage(o.binaries)
	}
	return recipe{}, fmt.Errorf("unknown kind %q", kind)
}

// etcdImage is laid out as gcr.io/etcd-development/etcd is: no shell, three binaries, root.
// clients is the version of etcdctl and etcdutl; "" for that of etcd.
func etcdImage(version, clients, binaries string) (recipe, error) {
	if version == "" {
		return recipe{}, fmt.Errorf("--version is needed")
	}
	dirs := map[string]string{"etcd": binaries, "etcdctl": binaries, "etcdutl": binaries}
	if binaries == "" {
		cache, err := cacheDir()
		if err != nil {
			return recipe{}, err
		}
		server, others := filepath.Join(cache, "etcd-"+version), filepath.Join(cache, "etcd-"+cmp.Or(clients, version))
		dirs = map[string]string{"etcd": server, "etcdctl": others, "etcdutl": others}
	}
	r := etcdLayout(version)
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		r.files = append(r.files, file{path: "usr/local/bin/" + name, source: filepath.Join(dirs[name], name)})
	}
	return r, nil
}

func etcdLayout(version string) recipe {
	return recipe{
		tag: "gcr.io/etcd-development/etcd:v" + version,
		config: v1.Config{
			Cmd:          []string{"/usr/local/bin/etcd"},
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			WorkingDir:   "/var/lib/etcd/",
			ExposedPorts: map[string]struct{}{"2379/tcp": {}, "2380/tcp": {}},
		},
		dirs: []string{"usr", "usr/local", "usr/local/bin", "var", "var/etcd", "var/lib", "var/lib/etcd", "tmp"},
	}
}

// failingImage is etcdImage whose etcd fails where the file "fail" on its volume says so: as many seconds after its
// start as the file tells, and at once for 0.
func failingImage(version, binaries string) (recipe, error) {
	r, err := etcdImage(version, "", binaries)
	if err != nil {
		return recipe{}, err
	}
	r.tag += "-failing"
	r.files[0].path = "usr/local/bin/working-etcd"
	r.dirs = append(r.dirs, "bin")
	r.addShell("/bin/busybox")
	r.files = append(r.files, file{path: "usr/local/bin/etcd", text: failingEtcd})
	return r, nil
}

const failingEtcd = `#!/bin/sh
if [ "$1" = --version ] || ! [ -s /var/etcd/fail ]; then exec working-etcd "$@"; fi
read -r seconds < /var/etcd/fail
[ "$seconds" = 0 ] || timeout -s KILL "$seconds" working-etcd "$@"
echo "panic: this etcd fails $seconds seconds after its start" >&2
exit 2
`

func operatorImage(version, binary string) (recipe, error) {
	if version == "" || binary == "" {
		return recipe{}, fmt.Errorf("--version and --binary are needed")
	}
	return recipe{
		tag:   "ghcr.io/etcd-warden/etcd-warden:v" + version,
		files: []file{{path: "etcd-warden", source: binary}},
		config: v1.Config{
			User:       "65532:65532",
			Entrypoint: []string{"/etcd-warden"},
			Labels: map[string]string{
				"org.opencontainers.image.title":       "etcd-warden",
				"org.opencontainers.image.description": "A Kubernetes operator that runs etcd",
				"org.opencontainers.image.source":      "https://github.com/etcd-warden/etcd-warden",
				"org.opencontainers.image.licenses":    "Apache-2.0",
				"org.opencontainers.image.version":     "v" + version,
			},
		},
	}, nil
}

func busyboxImage(binary string) (recipe, error) {
	if binary == "" {
		binary = "/bin/busybox"
	}
	r := recipe{
		tag:    "localhost/busybox:1",
		dirs:   []string{"bin", "etc", "tmp"},
		config: v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
	}
	r.addShell(binary)
	return r, nil
}

// addShell puts a static busybox and its applets into the image's /bin.
func (r *recipe) addShell(binary string) {
	r.files = append(r.files, file{path: "bin/busybox", source: binary})
	applets := "[ awk cat chmod cp cut date dd df du echo env expr false find grep gzip head hostname httpd id ip kill ln ls mkdir mktemp mv nc nslookup od ping ps pwd rm sed seq sh sleep sort stat sync tail tar tee test timeout top touch tr true umount uniq vi wc wget xargs"
	for name := range strings.FieldsSeq(applets) {
		r.links = append(r.links, link{path: "bin/" + name, target: "busybox"})
	}
}

func pauseImage(binary string) (recipe, error) {
	if binary == "" {
		return recipe{}, fmt.Errorf("--binary is needed")
	}
	return recipe{
		tag:    "registry.k8s.io/pause:3.10",
		files:  []file{{path: "pause", source: binary}},
		config: v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}},
	}, nil
}

// cacheDir is where hack/build-tools.sh puts what it builds.
func cacheDir() (string, error) {
	if dir := os.Getenv("ETCD_WARDEN_CACHE"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".cache", "etcd-warden"), err
}

// foreign sets archives for other machines apart.
func foreign(arch string) string {
	if arch == runtime.GOARCH {
		return ""
	}
	return "-" + arch
}
