;;; siblings.scm --- concurrent writes of one key, and how a resolver answers.
;;;
;;; (define-conflict-resolver 'name (lambda (key siblings) …)) is asked with the
;;; complete set of siblings and returns one of them, 'keep, or (merged "text").
;;; It must give the same for every order of the same siblings, and with copies among
;;; them: that is tried when it is loaded. (conflict-resolver 'name) is the function, for tests.
;;; (lines text) gives the lines that are not empty, (join-lines list) a text of them, each
;;; ended by a newline.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide define-conflict-resolver conflict-resolver merged
         sibling-region sibling-time sibling-value sibling-deleted? sibling-index
         live-siblings latest-sibling later? lines join-lines)

;;@doc
;; The answer "none of them: this text instead".
(define (merged text)
  (list 'merged text))

;;@doc
;; The siblings that are not deletions.
(define (live-siblings siblings)
  (filter (lambda (sibling) (not (sibling-deleted? sibling))) siblings))

;;@doc
;; #t when a was written after b. Equal times are settled by the region's name,
;; then by the place in the set, so that every region decides alike.
(define (later? a b)
  (define (name sibling) (symbol->string (sibling-region sibling)))
  (cond [(not (= (sibling-time a) (sibling-time b))) (> (sibling-time a) (sibling-time b))]
        [(not (equal? (name a) (name b))) (string>? (name a) (name b))]
        [else (> (sibling-index a) (sibling-index b))]))

;;@doc
;; The one written last. The list must not be empty.
(define (latest-sibling siblings)
  (best-by later? siblings))
