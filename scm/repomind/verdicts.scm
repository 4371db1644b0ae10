;;; verdicts.scm --- what a residency policy answers, and what it is asked about.
;;;
;;; Anything other than these lists is taken as a denial. A rule's name stands in
;;; refusals, audits and reports, so name it after what it demands.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide record-class record-law record-basis record-purpose
         allow-in allow deny define-region-policy
         rule rule-residency rule-transfer)

;; From the host:

;;@doc (record-class record)
;; The class of data, a symbol; `all-classes` of testing.scm lists them.
;; > (record-class (sample-record))
;; = operational

;;@doc (record-law record)
;; The body of law that applies: none, eea, other, or a country as a symbol.
;; > (record-law (sample-record #:law 'eea))
;; = eea

;;@doc (record-basis record)
;; The legal basis, a symbol.
;; > (record-basis (sample-record #:basis 'consent))
;; = consent

;;@doc (record-purpose record)
;; The purpose, a symbol.
;; > (record-purpose (sample-record))
;; = service

;;@doc (define-region-policy 'region alist)
;; Declares what a region takes in: `jurisdiction`, `accepts` (classes), `requires` (duties). Gives nothing.
;; > (define-region-policy 'eu-west '((jurisdiction . "IE") (accepts . (public personal)) (requires . (encrypt-at-rest))))

;;@doc
;; The regions of these ids may hold the record; no other may.
;; > (allow-in '(eu-west) 'stays-home '(encrypt-at-rest))
;; = (allow-in (eu-west) stays-home (encrypt-at-rest))
(define (allow-in ids rule obligations)
  (list 'allow-in ids rule obligations))

;;@doc
;; Yes, with these duties.
;; > (allow 'free '())
;; = (allow free ())
(define (allow rule obligations)
  (list 'allow rule obligations))

;;@doc
;; No.
;; > (deny 'stays-home)
;; = (deny stays-home)
(define (deny rule)
  (list 'deny rule))

;;@doc
;; A rule: its name, a test on the law of a region, and the duties that come with a yes.
;; > (car (rule 'free (lambda (law) #t) '()))
;; = free
(define (rule name lawful? obligations)
  (list name lawful? obligations))

(define (rule-allows? rule region)
  ((cadr rule) (region-law region)))

;;@doc
;; Which of the regions may hold what the rule governs.
;; > (rule-residency (rule 'home (lambda (law) (equal? law 'eea)) '()) (list (sample-region 'a #:country "IE") (sample-region 'b)))
;; = (allow-in (a) home ())
(define (rule-residency rule regions)
  (define homes (filter (lambda (region) (rule-allows? rule region)) regions))
  (if (null? homes)
      (deny (car rule))
      (allow-in (map region-id homes) (car rule) (caddr rule))))

;;@doc
;; Whether it may travel from one region to another: only if both may hold it.
;; > (rule-transfer (rule 'home (lambda (law) (equal? law 'eea)) '()) (sample-region 'a #:country "IE") (sample-region 'b))
;; = (deny home)
(define (rule-transfer rule from to)
  (if (and (rule-allows? rule from) (rule-allows? rule to))
      (allow (car rule) (caddr rule))
      (deny (car rule))))
