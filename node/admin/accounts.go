package admin

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// TokenFile is the file in a data directory that has the token; MinToken is the shortest one that counts, in bytes.
const (
	TokenFile = "admin.token"
	MinToken  = 16
)

// ErrNoAccount says that there is no account of that name, ErrBadAccount that there can be none like that.
var (
	ErrNoAccount  = errors.New("there is no such account")
	ErrBadAccount = errors.New("impossible")
)

// Accounts is the answer of GET /api/v1/accounts.
type Accounts struct {
	Accounts []Account `json:"accounts"`
}

// Account is somebody who may log in.
type Account struct {
	Name     string   `json:"name"`
	Groups   []string `json:"groups"`
	Admin    bool     `json:"admin"`
	Password bool     `json:"password"` // whether there is one; a certificate is enough where not
	Changed  string   `json:"changed"`
}

// AccountChange is the body of PUT /api/v1/accounts/NAME: what is to change of an account. A new one needs a Password.
type AccountChange struct {
	Password *string   `json:"password,omitempty"` // "" for none, so that only a certificate lets in
	Random   bool      `json:"random,omitempty"`   // the password has 128 random bits or more, so that a cheap hash will do
	Groups   *[]string `json:"groups,omitempty"`
	Admin    *bool     `json:"admin,omitempty"`
}

// Changed is the answer to a change of an account, or of the rules.
type Changed struct {
	Made bool `json:"made"` // it was not there before
}

// maxBody is the largest body with an account, in bytes: one with many groups.
const maxBody = 64 << 10

const accountsPath = "/api/v1/accounts"

// isAccounts reports whether a path is about accounts.
func isAccounts(path string) bool {
	return path == accountsPath || strings.HasPrefix(path, accountsPath+"/")
}

// needsToken reports whether a request changes something, or reads what not every user of the machine has to know.
func needsToken(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead || isAccounts(r.URL.Path) ||
		r.URL.Path == accessPath || r.URL.Path == checkPath || r.URL.Path == backupPath
}

// hasToken reports whether a request shows the token.
func hasToken(r *http.Request, token string) bool {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && token != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 1
}

func accountRoutes(mux *http.ServeMux, node Node) {
	mux.HandleFunc(accountsPath, func(w http.ResponseWriter, _ *http.Request) {
		all := emptyNotNull(node.Accounts())
		for i := range all {
			all[i].Groups = emptyNotNull(all[i].Groups)
		}
		writeJSON(w, http.StatusOK, Accounts{all})
	})
	mux.HandleFunc("PUT "+accountsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) { putAccount(w, r, node) })
	mux.HandleFunc("DELETE "+accountsPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		accountDone(w, false, node.DeleteAccount(r.PathValue("name")))
	})
}

func putAccount(w http.ResponseWriter, r *http.Request, node Node) {
	var c AccountChange
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil && d.Decode(&struct{}{}) != io.EOF {
		err = errors.New("there is more behind it")
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("want a body like {\"password\": \"...\", \"groups\": [\"sensors\"], \"admin\": false}: %v", err))
		return
	}
	made, err := node.SetAccount(r.Context(), r.PathValue("name"), c)
	accountDone(w, made, err)
}

func accountDone(w http.ResponseWriter, made bool, err error) {
	switch {
	case errors.Is(err, ErrNoAccount):
		writeError(w, http.StatusNotFound, err.Error())
	case errors.Is(err, ErrBadAccount):
		writeError(w, http.StatusUnprocessableEntity, err.Error())
	case err != nil:
		writeError(w, http.StatusInternalServerError, err.Error())
	default:
		writeJSON(w, http.StatusOK, Changed{made})
	}
}

// WithToken has the client show a token where one is needed.
func (c *Client) WithToken(token string) *Client {
	with := *c
	with.token = token
	return &with
}

// Accounts asks who may log in.
func (c *Client) Accounts(ctx context.Context) (a Accounts, err error) {
	return a, c.get(ctx, accountsPath, &a)
}

// SetAccount makes or changes an account.
func (c *Client) SetAccount(ctx context.Context, name string, change AccountChange) (done Changed, err error) {
	body, err := json.Marshal(change)
	if err != nil {
		return done, err
	}
	return done, c.askWith(ctx, http.MethodPut, accountsPath+"/"+url.PathEscape(name), bytes.NewReader(body), &done)
}

// DeleteAccount deletes an account.
func (c *Client) DeleteAccount(ctx context.Context, name string) error {
	return c.ask(ctx, http.MethodDelete, accountsPath+"/"+url.PathEscape(name), new(Changed))
}
