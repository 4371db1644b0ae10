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
;;;   default-jurisdiction, default-purpose, default-basis   the same for other labels
;;;   requires             labels that every write has to state: (class jurisdiction subject
;;;                        basis purpose retain-until)
;;;   keep-days            how long records of a class are kept: ((personal . 400) (health . 90))
;;;   quota                only for a namespace: ((bytes . 1000000000) (records . 100000)), one of them or
;;;                        both; a region that holds so much of it takes no more of its own clients (507).
;;;                        (object-bytes . 50000000) bounds one value (413); 1 GiB unless said
;;;   change-bounds        only in the default: ((traffic . 30) (more-permissive . 0)), the per cent of
;;;                        recent traffic that a save may send elsewhere, and how many residency
;;;                        verdicts may become more permissive, before it waits for a person's word

(require-builtin repomind/host)
(provide define-replication-strategy link-lag)

;; From the host:

;;@doc (define-replication-strategy ['namespace] alist)
;; Declares the default strategy, or that of a namespace; the keys stand at the top of this file. Gives nothing.
;; > (define-replication-strategy 'orders '((ack . (regions . 2)) (conflict-resolution . keep-siblings)))

;;@doc (link-lag link)
;; The age in ms of the oldest record that the peer has not durably acknowledged.
;; > (link-lag (sample-link #:lag 250))
;; = 250

