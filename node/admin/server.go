package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/unixsock"
)

// ErrBadTopic says that what was asked for is no topic name.
var ErrBadTopic = errors.New("not a topic name")

// What a request may cost. They are ours to tune.
const (
	maxConnections = 64               // at a time; the commands need one each
	maxHeader      = 16 << 10         // bytes; a topic of 64 KiB is not located over HTTP
	readTimeout    = 5 * time.Second  // for a request to come in
	writeTimeout   = 90 * time.Second // for the answer to go out: a 60 s CPU profile and some
	idleTimeout    = 60 * time.Second // between requests
	locateTimeout  = 10 * time.Second // for the nodes that are asked
)

// Options says how the API is served.
type Options struct {
	// Address is a loopback host:port (port 0 for any free one) or the path of a Unix socket; see
	// config.AdminAddress.
	Address string
	// Token is what requests that change something have to show where Address is not a Unix socket, which its mode
	// protects; "" for none, and then there are no changes.
	Token string
	// Pprof serves Go's profiles.
	Pprof bool
	// Metrics is what /metrics shows; nil for none.
	Metrics prometheus.Gatherer
	// Log gets what goes wrong in the server itself; nil for slog.Default().
	Log *slog.Logger
}

// Server serves the API of one node.
type Server struct {
	address  string
	listener net.Listener
	http     *http.Server
	served   chan struct{} // closed when the accepting goroutine has ended
}

// Start listens and serves until Close. When it fails, nothing is left running.
func Start(node Node, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	network, address, err := config.AdminAddress(o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for the administration API at %w", err)
	}
	l, err := listen(network, address)
	if err != nil {
		return nil, err
	}
	s := &Server{address: address, listener: netutil.LimitListener(l, maxConnections), served: make(chan struct{})}
	if network == "tcp" {
		s.address = l.Addr().String()
	}
	s.http = &http.Server{
		Handler:           guard(network, o.Token, routes(node, o)),
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: readTimeout,
	}
	go s.runAccept(o.Log)
	return s, nil
}

func (s *Server) runAccept(log *slog.Logger) {
	defer close(s.served)
	if err := s.http.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("the administration API has stopped", "address", s.address, "error", err)
	}
}

// Address returns where the API answers: host:port with the port that was taken, or the path of the socket.
func (s *Server) Address() string { return s.address }

// Close stops the server. Requests under way are given until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.served
	return err
}

// listen opens the listening socket, and says what to do where that fails.
func listen(network, address string) (l net.Listener, err error) {
	if network == "unix" {
		l, err = unixsock.Listen(address, 0o600)
	} else {
		l, err = net.Listen(network, address)
	}
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unixsock.ErrNoSocket):
		return nil, fmt.Errorf("listen for the administration API at %s: something that is no socket is in the way: choose another path with --admin", address)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for the administration API at %s: the address is in use, perhaps by another node: choose another with --admin (port 0 for any free one)", address)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("listen for the administration API at %s: no permission for user %d: choose another address with --admin", address, os.Getuid())
	}
	return nil, fmt.Errorf("listen for the administration API: %w: choose another address with --admin", err)
}

// guard lets through what may come from this machine only. A web page that a user of this machine visits
// can make the browser send requests here, under a name that the page's owner points at 127.0.0.1 (DNS
// rebinding): its Host or Origin gives it away.
func guard(network, token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case network == "tcp" && !loopbackHost(r.Host):
			writeError(w, http.StatusForbidden, fmt.Sprintf("requests for the host %q are not answered; ask for 127.0.0.1", r.Host))
		case r.Header.Get("Origin") != "":
			writeError(w, http.StatusForbidden, "requests from web pages are not answered")
		case r.Header.Get("Sec-Fetch-Site") != "" && r.Header.Get("Sec-Fetch-Site") != "none" && r.Header.Get("Sec-Fetch-Site") != "same-origin":
			writeError(w, http.StatusForbidden, "requests from web pages are not answered")
		case !allows(r):
			w.Header().Set("Allow", methodsOf(r.URL.Path))
			writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not allowed at %q, but %s is", r.Method, r.URL.Path, methodsOf(r.URL.Path)))
		case network == "tcp" && needsToken(r) && !hasToken(r, token):
			w.Header().Set("WWW-Authenticate", `Bearer realm="mozzie"`)
			writeError(w, http.StatusUnauthorized, "this needs the token that is in "+TokenFile+" in the node's data directory, "+
				"which the mozzie commands find with --data, or are given with --token-file or MOZZIE_ADMIN_TOKEN")
		case r.Method == http.MethodPut && r.Header.Get("Content-Type") != bodyType(r.URL.Path):
			writeError(w, http.StatusUnsupportedMediaType, "want a body of the type "+bodyType(r.URL.Path))
		case r.Method == http.MethodPut && (r.ContentLength < 1 || r.ContentLength > bodyLimit(r.URL.Path)):
			writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("want a body of 1 to %d bytes", bodyLimit(r.URL.Path)))
		case r.Method != http.MethodPut && r.ContentLength != 0:
			writeError(w, http.StatusRequestEntityTooLarge, "a request has no body here")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// acts are the paths that change something, with the method for it. Those of accounts have no others below them.
var acts = map[string]string{"/api/v1/reload": http.MethodPost, forgetPath: http.MethodPost}

// methodsOf returns what may be done at a path.
func methodsOf(path string) string {
	switch m, ok := acts[path]; {
	case ok:
		return m
	case isAccounts(path) && path != accountsPath:
		return "PUT, DELETE"
	case path == leavePath:
		return "GET, HEAD, POST"
	case path == accessPath:
		return "GET, HEAD, PUT"
	}
	return "GET, HEAD"
}

// yamlType is the type of configurations and rules.
const yamlType = "application/yaml"

// bodyType returns what a body that is put at a path is.
func bodyType(path string) string {
	if path == accessPath {
		return yamlType
	}
	return "application/json"
}

// bodyLimit returns how large it can be, in bytes.
func bodyLimit(path string) int64 {
	if path == accessPath {
		return MaxRules
	}
	return maxBody
}

func allows(r *http.Request) bool {
	return slices.Contains(strings.Split(methodsOf(r.URL.Path), ", "), r.Method)
}

// loopbackHost reports whether a Host header names this machine.
func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func routes(node Node, o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { ready(w, node) })
	mux.HandleFunc("/api/v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, node.Status()) })
	mux.HandleFunc("/api/v1/peers", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Peers{Peers: emptyNotNull(node.Peers())})
	})
	mux.HandleFunc("/api/v1/locate", func(w http.ResponseWriter, r *http.Request) { locate(w, r, node) })
	mux.HandleFunc("/api/v1/invite", func(w http.ResponseWriter, _ *http.Request) { invite(w, node) })
	mux.HandleFunc("/api/v1/config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", yamlType)
		io.WriteString(w, node.Config())
	})
	accountRoutes(mux, node)
	accessRoutes(mux, node)
	backupRoutes(mux, node)
	leaveRoutes(mux, node)
	mux.HandleFunc("/api/v1/reload", func(w http.ResponseWriter, _ *http.Request) { reload(w, node) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %q", r.URL.Path))
	})
	if o.Metrics != nil {
		mux.Handle("/metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: writeTimeout / 2}))
	}
	if o.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func ready(w http.ResponseWriter, node Node) {
	ok, reasons := node.Ready()
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, Ready{Ready: ok, Reasons: reasons})
}

func locate(w http.ResponseWriter, r *http.Request, node Node) {
	topic := r.URL.Query().Get("topic")
	if topic == "" {
		writeError(w, http.StatusBadRequest, "the topic is missing: /api/v1/locate?topic=doors/1")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), locateTimeout)
	defer cancel()
	l, err := node.Locate(ctx, topic)
	switch {
	case errors.Is(err, ErrBadTopic):
		writeError(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		writeError(w, http.StatusGatewayTimeout, "no answer from the swarm: "+err.Error())
	case err != nil:
		writeError(w, http.StatusInternalServerError, err.Error())
	default:
		l.Members = emptyNotNull(l.Members)
		writeJSON(w, http.StatusOK, l)
	}
}

func invite(w http.ResponseWriter, node Node) {
	s, err := node.Invite()
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, Invite{Invite: s})
}

func reload(w http.ResponseWriter, node Node) {
	what, err := node.Reload()
	if err != nil {
		writeError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, Reloaded{Reloaded: emptyNotNull(what)})
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, &Error{Message: message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // fails when the client has gone
}

// emptyNotNull makes an empty list an empty list in JSON too.
func emptyNotNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
