package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// serve runs a registry until the process ends.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	address := flags.String("address", "", "")
	cert, key := flags.String("cert", "", ""), flags.String("key", "", "")
	dir := flags.String("dir", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *address == "" || (*cert == "") != (*key == "") {
		return fmt.Errorf("--address is needed, and --cert and --key only together")
	}
	options := []registry.Option{registry.Logger(log.New(io.Discard, "", 0))}
	if *dir != "" {
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return err
		}
		options = append(options, registry.WithBlobHandler(registry.NewDiskBlobHandler(*dir)))
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	var protocols http.Protocols
	protocols.SetHTTP1(true) // over HTTP/2 the upload of two layers at once was seen to hang for good
	server := &http.Server{Handler: registry.New(options...), ReadHeaderTimeout: time.Minute, Protocols: &protocols}
	if *cert != "" {
		return server.ServeTLS(listener, *cert, *key)
	}
	return server.Serve(listener)
}

// pushTimeout is many times what the largest image takes.
const pushTimeout = 2 * time.Minute

// push sends the archive's image to a registry, under the path of the image's name.
// It does not send again what the registry already has.
func push(archive, tag, host string) error {
	own, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	image, err := tarball.ImageFromPath(archive, &own)
	if err != nil {
		return err
	}
	there, err := name.NewTag(host + "/" + own.RepositoryStr() + ":" + own.TagStr())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), pushTimeout)
	defer cancel()
	return remote.Write(there, image, remote.WithContext(ctx))
}
