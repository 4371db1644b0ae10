;;; eventual-consistency.scm --- how data is replicated, by namespace.
;;;
;;; Asked:    once, when the tree is loaded.
;;; Returns:  nothing; it declares the default strategy and the namespaces that differ.
;;; On error: the tree is refused and the last version that loaded stays.

(require "repomind/replication.scm")
(require "repomind/testing.scm")
(provide policy-api)

(define policy-api 1)

(define-replication-strategy
  '((mode . eventual-consistency)
    (lag-target . 5000)
    (conflict-resolution . last-write-wins)
    (priority-regions . (us-east eu-west))
    ;; A save that sends more than 30 % of the recent traffic elsewhere, or lets data be
    ;; where it may not be today, waits for `repomind-run policy confirm`.
    (change-bounds . ((traffic . 30) (more-permissive . 0)))))

;; Namespaces take from the default what they leave out. Each says what its records are
;; when a writer names no class; elsewhere they are taken as the runtime's default.

(define-replication-strategy 'notes '((default-class . operational)))

;; An answer is computed from a repository; the copy made nearest to the primary's
;; index is the freshest, whatever the clocks say.
(define-replication-strategy 'answers
  '((conflict-resolution . priority-regions)
    (priority-regions . (us-east eu-west))
    (default-class . source-code)))

;; Settings are lines that people add from several places: keep everybody's, and
;; acknowledge only what survives the loss of one region.
(define settings
  '((lag-target . 2000)
    (conflict-resolution . union-of-lines)
    (ack . (regions . 2))
    (default-class . operational)))
(define-replication-strategy 'settings settings)

;; Of two drafts the longer has lost less of somebody's work.
(define-replication-strategy 'drafts
  '((conflict-resolution . prefer-longest)
    (default-class . source-code)))

;; A profile is about a person, so a write that names no class gets the strict rules.
;; Of a conflict both versions are shown: only the person knows which is right.
(define profiles
  '((conflict-resolution . keep-siblings)
    (priority-regions . (eu-west us-east))
    (default-class . personal)))
(define-replication-strategy 'profiles profiles)

(define (of key strategy) (cdr (assoc key strategy)))

(test-module "eventual-consistency"
  (check-equal? "profiles are personal by default" (of 'default-class profiles) 'personal)
  (check-equal? "a setting is on two disks in two regions before it is acknowledged"
                (of 'ack settings) '(regions . 2)))
