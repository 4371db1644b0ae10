;;; conflict-resolution.scm --- who wins when two regions wrote one key at once.
;;;
;;; Asked:    for each conflict in a namespace that names one of these resolvers.
;;; Returns:  one of the siblings, 'keep, or (merged "text").
;;; On error: the siblings stay, and readers see the last write, marked as undecided.

(require "repomind/prelude.scm")
(require "repomind/siblings.scm")
(require "repomind/testing.scm")
(provide policy-api union-of-lines prefer-longest)

(define policy-api 1)

;;@doc
;; Every line that any sibling has, once, in alphabetical order. A delete that
;; raced with an edit loses; a line deleted on one side only comes back.
(define (union-of-lines key siblings)
  (define live (live-siblings siblings))
  (if (null? live)
      (latest-sibling siblings)
      (merged (union-lines (map sibling-value live)))))

(define (longer? a b)
  (define (size sibling) (string-length (sibling-value sibling)))
  (if (= (size a) (size b)) (later? a b) (> (size a) (size b))))

;;@doc
;; The longest text, the later of two as long; deletions lose.
(define (prefer-longest key siblings)
  (define live (live-siblings siblings))
  (if (null? live) (latest-sibling siblings) (best-by longer? live)))

(define-conflict-resolver 'union-of-lines union-of-lines)
(define-conflict-resolver 'prefer-longest prefer-longest)

(define here (sample-sibling #:region 'us-east #:time 5 #:value "theme=dark\nlang=en\n" #:index 0))
(define there (sample-sibling #:region 'eu-west #:time 9 #:value "lang=en\ntabs=4\n" #:index 1))
(define gone (sample-sibling #:region 'ap-southeast #:time 20 #:deleted #t #:index 2))

(define (same-in-every-order? resolver)
  (define (outcome order)
    (let ([answer (resolver "k" order)])
      (if (list? answer) answer (sibling-index answer))))
  (every (lambda (order) (equal? (outcome order) (outcome (list here there gone))))
         (list (list here gone there) (list there here gone) (list there gone here)
               (list gone here there) (list gone there here))))

(test-module "conflict-resolution"
  (check-equal? "nobody's line is lost" (union-of-lines "k" (list here there gone))
                (merged "lang=en\ntabs=4\ntheme=dark\n"))
  (check-property "a line that stands in a draft stands in the union"
                  ([siblings (any-siblings)])
                  (define union (union-of-lines "k" siblings))
                  (or (not (list? union))
                      (every (lambda (sibling) (every (lambda (line) (member line (lines (cadr union))))
                                                      (lines (sibling-value sibling))))
                             siblings)))
  (check-equal? "the longer draft wins, though it is older"
                (sibling-value (prefer-longest "k" (list here there))) "theme=dark\nlang=en\n")
  (check-equal? "a key deleted everywhere stays deleted"
                (map (lambda (f) (sibling-deleted? (f "k" (list gone)))) (list union-of-lines prefer-longest)) '(#t #t))
  (check-true "every region decides alike, in whatever order the writes arrived"
              (and (same-in-every-order? union-of-lines) (same-in-every-order? prefer-longest))))
