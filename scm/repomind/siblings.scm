;;; siblings.scm --- concurrent writes of one key, and how a resolver answers.
;;;
;;; (define-conflict-resolver 'name (lambda (key siblings) …)) is asked with the
;;; complete set of siblings and returns one of them, 'keep, or (merged "text").
;;; It must give the same for every order of the same siblings, and with copies among
;;; them: that is tried when it is loaded. (conflict-resolver 'name) is the function, for tests.
;;; (lines text) gives the lines that are not empty, (join-lines list) a text of them, each
;;; ended by a newline; (union-lines texts) is the text of every line that any of them has.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide define-conflict-resolver conflict-resolver merged
         sibling-region sibling-time sibling-value sibling-deleted? sibling-index
         live-siblings latest-sibling later? lines join-lines union-lines)

;; From the host:

;;@doc (define-conflict-resolver 'name (lambda (key siblings) …))
;; Declares a resolver. It must give the same for every order of the siblings, and with copies among them. Gives nothing.
;; > (define-conflict-resolver 'latest (lambda (key siblings) (latest-sibling siblings)))

;;@doc (conflict-resolver 'name)
;; The function of a resolver that was defined before, for tests.
;; > (begin (define-conflict-resolver 'first-of (lambda (key siblings) 'keep)) ((conflict-resolver 'first-of) "k" '()))
;; = keep

;;@doc (sibling-region sibling)
;; The region that took the write, a symbol.
;; > (sibling-region (sample-sibling #:region 'eu-west))
;; = eu-west

;;@doc (sibling-time sibling)
;; When it was written, in ms since 1970.
;; > (sibling-time (sample-sibling #:time 5))
;; = 5

;;@doc (sibling-value sibling)
;; The text written; empty for a deletion.
;; > (sibling-value (sample-sibling #:value "a"))
;; = "a"

;;@doc (sibling-deleted? sibling)
;; #t when the write deleted the key.
;; > (sibling-deleted? (sample-sibling #:deleted #t))
;; = #true

;;@doc (sibling-index sibling)
;; Its place in the complete set, from 0.
;; > (sibling-index (sample-sibling #:index 2))
;; = 2

;;@doc (lines text)
;; The lines of a text that are not empty.
;; > (lines "a\n\nb\n")
;; = ("a" "b")

;;@doc (join-lines items)
;; A text of these lines, each ended by a newline.
;; > (join-lines '("a" "b"))
;; = "a\nb\n"

;;@doc (union-lines texts)
;; A text of every line that any of the texts has, once, in alphabetical order. Much quicker than the lists of lines.
;; > (union-lines '("b\na\n" "c\na\n"))
;; = "a\nb\nc\n"

;;@doc
;; The answer "none of them: this text instead".
;; > (merged "a\n")
;; = (merged "a\n")
(define (merged text)
  (list 'merged text))

;;@doc
;; The siblings that are not deletions.
;; > (length (live-siblings (list (sample-sibling) (sample-sibling #:deleted #t))))
;; = 1
(define (live-siblings siblings)
  (filter (lambda (sibling) (not (sibling-deleted? sibling))) siblings))

;;@doc
;; #t when a was written after b. Equal times are settled by the region's name,
;; then by the place in the set, so that every region decides alike.
;; > (later? (sample-sibling #:time 2) (sample-sibling #:time 1))
;; = #true
(define (later? a b)
  (define (name sibling) (symbol->string (sibling-region sibling)))
  (cond [(not (= (sibling-time a) (sibling-time b))) (> (sibling-time a) (sibling-time b))]
        [(not (equal? (name a) (name b))) (string>? (name a) (name b))]
        [else (> (sibling-index a) (sibling-index b))]))

;;@doc
;; The one written last. The list must not be empty.
;; > (sibling-value (latest-sibling (list (sample-sibling #:time 1 #:value "old") (sample-sibling #:time 2 #:value "new"))))
;; = "new"
(define (latest-sibling siblings)
  (best-by later? siblings))
