// A function of the format http-stream, written from the text of docs/formats.md alone: no kit, several calls at once.
//
// It answers 201 with the body of the request and a header, logs a line, and fails for the body "fail". Calls with the
// body "meet" are answered once as many of them run as the configuration says in MEET.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

var (
	meeting int64
	met     = make(chan struct{})
)

func meet() {
	wanted, _ := strconv.ParseInt(os.Getenv("MEET"), 10, 64)
	if atomic.AddInt64(&meeting, 1) == wanted {
		close(met)
	}
	<-met
}

func serve(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Fprintf(os.Stderr, "%d bytes\n", len(body))
	switch string(body) {
	case "fail":
		answer.WriteHeader(http.StatusBadGateway)
		return
	case "meet":
		meet()
	}
	mark := ""
	if request.Header.Get("Fn-Intent") == "httprequest" {
		mark = "Fn-Http-H-"
	}
	answer.Header().Set(mark+"X-Made-By", "go")
	answer.Header().Set("Content-Type", "text/x-go")
	answer.Header().Set("Fn-Http-Status", "201")
	answer.Write(body)
}

// listen makes the socket under another name; the link is the last step.
func listen(address string) (net.Listener, error) {
	path := strings.TrimPrefix(address, "unix:")
	listener, err := net.Listen("unix", path+".go")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path+".go", 0o666); err != nil {
		return nil, err
	}
	return listener, os.Symlink(filepath.Base(path)+".go", path)
}

func main() {
	listener, err := listen(os.Getenv("FN_LISTENER"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(serve)))
}
