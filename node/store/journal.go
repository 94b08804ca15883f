package store

import (
	protobuf "google.golang.org/protobuf/proto"
)

// Journal is core.Journal in the database.
type Journal struct{ db *DB }

// Journal returns the journal of the database.
func (d *DB) Journal() *Journal { return &Journal{d} }

// Put implements core.Journal.
func (j *Journal) Put(key string, record protobuf.Message) {
	j.db.put(string(kindJournal)+key, record, false)
}

// Delete implements core.Journal.
func (j *Journal) Delete(key string) { j.db.remove(string(kindJournal) + key) }

// Load implements core.Journal.
func (j *Journal) Load(each func(key string, record []byte)) {
	err := j.db.each([]byte{kindJournal}, func(key, record []byte) bool {
		each(string(key), record)
		return true
	})
	if err != nil {
		j.db.damaged(err)
	}
}
