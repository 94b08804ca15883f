package dht

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// libp2p and kad-dht log to the process: they have one logger each, not one for each host. libp2p's errors
// go on as warnings to the Log of the Host that was opened last; what it calls a warning is ordinary here
// (a peer that went away, an address that does not answer) and goes on as debug. kad-dht's are silenced:
// it warns at every start that an empty table holds nobody. Who sets GOLOG_LOG_LEVEL, as libp2p's
// documentation says, gets everything on standard error as libp2p has it.

var (
	libraryLog  atomic.Pointer[slog.Logger]
	setLogsOnce sync.Once
)

func setLibraryLogs(log *slog.Logger) {
	libraryLog.Store(log)
	setLogsOnce.Do(func() {
		if os.Getenv("GOLOG_LOG_LEVEL") != "" {
			return
		}
		golog.SetAllLoggers(golog.LevelFatal)
		gologshim.SetDefaultHandler(libraryHandler{})
		// quic-go prints to the standard logger when the kernel's UDP buffers are small, as they are by
		// default everywhere. It reads this when it first listens.
		_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	})
}

// libraryHandler passes libp2p's records on, two levels down at most.
type libraryHandler struct {
	attrs []slog.Attr
}

func demote(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (libraryHandler) Enabled(ctx context.Context, l slog.Level) bool {
	log := libraryLog.Load()
	return log != nil && l >= slog.LevelWarn && log.Enabled(ctx, demote(l))
}

func (h libraryHandler) Handle(ctx context.Context, r slog.Record) error {
	log := libraryLog.Load()
	if log == nil {
		return nil
	}
	out := slog.NewRecord(r.Time, demote(r.Level), "libp2p: "+r.Message, r.PC)
	out.AddAttrs(h.attrs...)
	r.Attrs(func(a slog.Attr) bool { out.AddAttrs(a); return true })
	return log.Handler().Handle(ctx, out)
}

func (h libraryHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return libraryHandler{attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h libraryHandler) WithGroup(string) slog.Handler { return h }
