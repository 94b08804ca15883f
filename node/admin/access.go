package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// MaxRules is how large access rules can be, in bytes.
const MaxRules = 4 << 20

// ErrNoRules says that there are no access rules, ErrBadRules that there can be none like that, ErrBadQuestion that what
// is asked for makes no sense.
var (
	ErrNoRules     = errors.New("there are no access rules: who is let in may do everything")
	ErrBadRules    = errors.New("nothing was changed")
	ErrBadQuestion = errors.New("impossible")
)

// Question asks what a client may do.
type Question struct {
	User   string // "" for a client without a name
	Client string // its client ID
	// One of the two: the topic that it would publish to, the filter that it would subscribe to.
	Publish, Subscribe string
}

// What decides about a client, as Verdict.By.
const (
	ByRule    = "rule"     // one allows or denies it: the verdict says which
	ByNone    = "no rule"  // none allows it
	ByNoRules = "no rules" // there are none at all
	ByAdmin   = "admin"    // no rule binds an admin
	ByDeleted = "deleted"  // the account was deleted
)

// Verdict is the answer of GET /api/v1/access/check.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	By      string `json:"by"`
	// The rule, by its place in the file, and its filter; where By is ByRule.
	Rule   string `json:"rule,omitempty"`
	Filter string `json:"filter,omitempty"`
	// Account says whether there is one of the name; its groups.
	Account bool     `json:"account"`
	Groups  []string `json:"groups"`
}

const (
	accessPath = "/api/v1/access"
	checkPath  = "/api/v1/access/check"
)

func accessRoutes(mux *http.ServeMux, node Node) {
	mux.HandleFunc("GET "+accessPath, func(w http.ResponseWriter, _ *http.Request) {
		text, err := node.Rules()
		if err != nil {
			accessError(w, err)
			return
		}
		w.Header().Set("Content-Type", yamlType)
		_, _ = w.Write(text) // fails when the client has gone
	})
	mux.HandleFunc("PUT "+accessPath, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRules))
		if err != nil {
			writeError(w, http.StatusBadRequest, "read the rules: "+err.Error())
			return
		}
		made, err := node.SetRules(text)
		if err != nil {
			accessError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, Changed{made})
	})
	mux.HandleFunc("GET "+checkPath, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		v, err := node.Check(Question{q.Get("user"), q.Get("client"), q.Get("publish"), q.Get("subscribe")})
		if err != nil {
			accessError(w, err)
			return
		}
		v.Groups = emptyNotNull(v.Groups)
		writeJSON(w, http.StatusOK, v)
	})
}

func accessError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNoRules):
		status = http.StatusNotFound
	case errors.Is(err, ErrBadRules):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, ErrBadQuestion):
		status = http.StatusBadRequest
	}
	writeError(w, status, err.Error())
}

// Rules asks for the access rules in force, as the text of their file.
func (c *Client) Rules(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, accessPath, nil)
}

// SetRules replaces the access rules, or makes some.
func (c *Client) SetRules(ctx context.Context, text []byte) (done Changed, err error) {
	return done, c.askWith(ctx, http.MethodPut, accessPath, bytes.NewReader(text), &done)
}

// Check asks what a client may do.
func (c *Client) Check(ctx context.Context, q Question) (v Verdict, err error) {
	ask := url.Values{}
	for name, value := range map[string]string{"user": q.User, "client": q.Client, "publish": q.Publish, "subscribe": q.Subscribe} {
		if value != "" {
			ask.Set(name, value)
		}
	}
	return v, c.get(ctx, fmt.Sprintf("%s?%s", checkPath, ask.Encode()), &v)
}
