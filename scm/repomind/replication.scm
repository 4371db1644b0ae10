;;; replication.scm --- declares strategies, and what a link is.
;;;
;;; (define-replication-strategy alist) sets the default and
;;; (define-replication-strategy 'namespace alist) a namespace that differs. Keys:
;;;
;;;   mode                 eventual-consistency
;;;   lag-target           ms that operators want to stay below
;;;   conflict-resolution  last-write-wins, priority-regions, keep-siblings, or a resolver's name
;;;   priority-regions     regions, preferred first
;;;   ack                  local, majority, or (regions . 2): copies on disk before a write is acknowledged
;;;   default-class        the class of records that name none
;;;   change-bounds        only in the default: ((traffic . 30) (more-permissive . 0)), the per cent of
;;;                        recent traffic that a save may send elsewhere, and how many residency
;;;                        verdicts may become more permissive, before it waits for a person's word

(require-builtin repomind/host)
(provide define-replication-strategy link-lag)
