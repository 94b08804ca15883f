package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// What keeps a node from leaving for good, or another from being forgotten.
var (
	ErrSessions    = errors.New("sessions would be lost")
	ErrAlone       = errors.New("no other node can be reached: there is nobody to hand anything over to")
	ErrLeaving     = errors.New("the node is stopping already")
	ErrNoNode      = errors.New("no such node is known here")
	ErrNodeThere   = errors.New("the node is connected: stop it first, or have it leave by \"mozzie leave\"")
	ErrBadNodeName = errors.New("not a peer ID")
)

const (
	leavePath  = "/api/v1/leave"
	forgetPath = "/api/v1/nodes/forget"
	// maxLeave is how long a node may take to leave.
	maxLeave = time.Hour
)

// AtStake is what a node has that it cannot hand over.
type AtStake struct {
	Sessions int `json:"sessions"` // that outlive their connections and are at this node alone
	Messages int `json:"messages"` // that wait in them
	Retained int `json:"retained"` // retained messages below $local
}

// Left is what became of a node that was told to leave for good. It ends when it has said so.
type Left struct {
	Lost  AtStake `json:"lost"`   // as far as that was allowed
	TookS float64 `json:"took_s"` // how long it took
}

func leaveRoutes(mux *http.ServeMux, node Node) {
	mux.HandleFunc(leavePath, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			leave(w, r, node)
			return
		}
		writeJSON(w, http.StatusOK, node.AtStake())
	})
	mux.HandleFunc(forgetPath, func(w http.ResponseWriter, r *http.Request) { forget(w, r, node) })
}

func leave(w http.ResponseWriter, r *http.Request, node Node) {
	limit, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || limit < time.Second || limit > maxLeave {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("want a timeout of 1s to %v", maxLeave))
		return
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit) // who asked may go: it is begun
	defer cancel()
	left, err := node.Leave(ctx, r.URL.Query().Get("discard_sessions") == "true")
	switch {
	case errors.Is(err, ErrSessions), errors.Is(err, ErrAlone), errors.Is(err, ErrLeaving):
		writeError(w, http.StatusConflict, err.Error())
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, err.Error())
	default:
		writeJSON(w, http.StatusOK, left)
	}
}

func forget(w http.ResponseWriter, r *http.Request, node Node) {
	switch err := node.Forget(r.URL.Query().Get("node")); {
	case errors.Is(err, ErrBadNodeName):
		writeError(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, ErrNoNode):
		writeError(w, http.StatusNotFound, err.Error())
	case errors.Is(err, ErrNodeThere):
		writeError(w, http.StatusConflict, err.Error())
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, err.Error())
	default:
		writeJSON(w, http.StatusOK, struct{}{})
	}
}

// AtStake asks what the node cannot hand over.
func (c *Client) AtStake(ctx context.Context) (a AtStake, err error) {
	return a, c.get(ctx, leavePath, &a)
}

// Leave has the node leave for good within a time, and waits for that. With discard it does so though sessions are lost.
func (c *Client) Leave(ctx context.Context, discard bool, limit time.Duration) (l Left, err error) {
	unhurried := *c.http
	unhurried.Timeout = 0
	q := url.Values{"timeout": {limit.String()}, "discard_sessions": {fmt.Sprint(discard)}}
	return l, (&Client{c.address, c.token, &unhurried}).ask(ctx, http.MethodPost, leavePath+"?"+q.Encode(), &l)
}

// Forget has the node, and those that it is connected to, take another for gone for good.
func (c *Client) Forget(ctx context.Context, peerID string) error {
	return c.ask(ctx, http.MethodPost, forgetPath+"?node="+url.QueryEscape(peerID), &struct{}{})
}
